"""Options and arguments that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

URL = "http://127.0.0.1:8000"
UrlOption = Annotated[
    str, typer.Option("--url", envvar="ROCKILN_URL", help="Where the service is.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
OutputOption = Annotated[
    str,
    typer.Option(
        "--output", "-o", help="File; {seed} and {index} are filled in. - for standard output."
    ),
]
OUTPUT = "rockiln-{seed}-{index}.png"
PictureOption = Annotated[
    bool,
    typer.Option(
        "--picture/--no-picture",
        help="Show the picture, in a terminal that can (kitty, iTerm2, sixel).",
    ),
]


def complete_job(incomplete: str) -> list[str]:
    """Ids of the newest jobs, for the shell."""
    return _ids("/jobs?limit=100", "jobs", incomplete)


def complete_model(incomplete: str) -> list[str]:
    """Ids of models, for the shell."""
    return _ids("/models", "models", incomplete)


def _ids(path: str, kind: str, incomplete: str) -> list[str]:
    import os  # noqa: PLC0415 (as below: only a shell that completes needs it)

    from rockiln.cli.client import AddressError, Client, UnreachableError  # noqa: PLC0415

    try:
        with Client(os.environ.get("ROCKILN_URL", URL), timeout_seconds=1.0) as client:
            found = client.call("GET", path).json().get(kind, [])
    except (AddressError, UnreachableError):
        return []  # nothing to offer; the command itself will say why
    return [each["id"] for each in found if each["id"].startswith(incomplete)]


ModelArgument = Annotated[
    str, typer.Argument(help="Model id, see rockiln models list.", autocompletion=complete_model)
]
JobArgument = Annotated[
    str,
    typer.Argument(
        help="Job id, or how it begins, see rockiln jobs list.", autocompletion=complete_job
    ),
]
