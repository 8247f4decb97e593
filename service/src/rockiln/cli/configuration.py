"""Settings for a command, with mistakes told as a person would."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import typer
from pydantic import ValidationError

from rockiln.cli.exit_codes import FAILED
from rockiln.settings import ENV_PREFIX, Settings


def load_settings(
    given: Mapping[str, Any] | None = None, *, options: Mapping[str, str] | None = None
) -> Settings:
    """The settings with ``given`` over them, or the end of the command.

    Args:
        options: setting → the option that gave it.
    """
    try:
        return Settings(**(given or {}))
    except ValidationError as error:
        for each in error.errors(include_url=False):
            reason = each["msg"].removeprefix("Value error, ")
            print(f"rockiln: {_source(each['loc'], options or {})}{reason}", file=sys.stderr)
        print("next: correct the option, the variable, or settings.toml", file=sys.stderr)
        raise typer.Exit(FAILED) from error


def _source(place: tuple[int | str, ...], options: Mapping[str, str]) -> str:
    """Where a wrong value came from; empty if several values do not go together."""
    if not place:
        return ""
    name = str(place[0])
    return f"{options.get(name, ENV_PREFIX + name.upper())}: "
