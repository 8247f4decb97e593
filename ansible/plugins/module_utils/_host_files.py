"""PRIVATE to the collection. Files of the host: whole or not at all, and their diffs."""

from __future__ import annotations

import os
from pathlib import Path


def file_diff(path: Path, before: str, after: str) -> dict[str, str]:
    return {
        "before_header": str(path),
        "after_header": str(path),
        "before": before,
        "after": after,
    }


def write_whole(path: Path, data: bytes) -> None:
    """The old or the new file, whatever happens meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.rockiln")
    with part.open("wb") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
