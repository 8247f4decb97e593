"""The hub's token. Only the fetcher's environment has it, and no log."""

from __future__ import annotations

from rockiln.settings import Settings


def read_token(settings: Settings) -> str | None:
    """From the setting, else its file; None if there is none.

    Raises:
        OSError: the file that is named cannot be read.
    """
    if settings.hub_token is not None:
        return settings.hub_token.get_secret_value() or None
    if settings.hub_token_file is None or not settings.hub_token_file.exists():
        return None
    return settings.hub_token_file.read_text(encoding="utf-8").strip() or None
