"""Files that add to a model: folders of LoRAs and textual inversions. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.request import ADDON_NAME_PATTERN

SUFFIX = ".safetensors"


def addon_files(model_dirs: Iterable[Path], folder: str) -> dict[str, Path]:
    """Name → file, over the folders of that name in the model directories; the first one wins."""
    found: dict[str, Path] = {}
    for root in model_dirs:
        for path in sorted((root / folder).glob(f"*{SUFFIX}")):
            if re.fullmatch(ADDON_NAME_PATTERN, path.stem):
                found.setdefault(path.stem, path)
    return found


def find_addons(
    model_dirs: Iterable[Path], folder: str, names: Iterable[str], what: str
) -> dict[str, str]:
    """Name → path of those that a job names. Raises BrokenModelError if one is not there."""
    wanted = list(names)
    files = addon_files(model_dirs, folder) if wanted else {}
    for name in wanted:
        if name not in files:
            raise BrokenModelError(f"there is no {what} {name!r} (any more)")
    return {name: str(files[name]) for name in wanted}
