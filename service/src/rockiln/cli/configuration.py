"""Settings for a command, with mistakes told as a person would."""

from __future__ import annotations

import sys

import typer
from pydantic import ValidationError

from rockiln.cli.exit_codes import FAILED
from rockiln.settings import ENV_PREFIX, Settings


def load_settings() -> Settings:
    """The settings, or the end of the command."""
    try:
        return Settings()
    except ValidationError as error:
        for each in error.errors(include_url=False):
            name = ENV_PREFIX + "_".join(str(part) for part in each["loc"]).upper()
            print(f"rockiln: {name}: {each['msg'].removeprefix('Value error, ')}", file=sys.stderr)
        print("rockiln: correct the variable, or settings.toml; next: try again", file=sys.stderr)
        raise typer.Exit(FAILED) from error
