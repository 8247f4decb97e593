"""JSON files of a model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rockiln.domain.errors import BrokenModelError

_JSON_MAX_BYTES = 64 * 1024 * 1024


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        BrokenModelError: missing, too large, or not a JSON object.
    """
    name = f"{path.parent.name}/{path.name}"
    if not path.is_file():
        raise BrokenModelError(f"{name} is missing")
    if path.stat().st_size > _JSON_MAX_BYTES:
        raise BrokenModelError(f"{name} is larger than {_JSON_MAX_BYTES} bytes")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BrokenModelError(f"{name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise BrokenModelError(f"{name} is not a JSON object")
    return content
