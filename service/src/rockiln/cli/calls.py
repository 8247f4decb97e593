"""What commands over HTTP share: how they end, and how an end is told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from rockiln.cli import exit_codes
from rockiln.cli.client import AddressError, Client, Reply, UnreachableError

Document = dict[str, Any]


class CommandEndError(Exception):
    """Ends the command with an exit code and a word to the person."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def run_calls(url: str, work: Callable[[Client], None]) -> int:
    """Does the work with a client of the service; returns the exit code."""
    try:
        with Client(url) as client:
            work(client)
    except CommandEndError as error:
        print(f"rockiln: {error}", file=sys.stderr)
        return error.code
    except AddressError as error:
        print(f"rockiln: {error}", file=sys.stderr)
        return exit_codes.USAGE
    except UnreachableError as error:
        print(
            f"rockiln: {error}\nnext: start the service (rockiln serve), or give --url",
            file=sys.stderr,
        )
        return exit_codes.UNREACHABLE
    return 0


def accepted(reply: Reply) -> Document:
    """What a good answer says. Raises CommandEndError for a refusal."""
    if not reply.ok:
        command = reply.json().get("command")
        after = f"\nthen: {command}" if command else ""
        raise CommandEndError(exit_codes.REFUSED, reply.told() + after)
    return reply.json()


def plain(text: str) -> str:
    """Somebody's text on one line, without what would steer the terminal."""
    return "".join(each if each.isprintable() else " " for each in text)
