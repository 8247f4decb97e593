"""What adds to a model: folders of LoRAs, textual inversions and ControlNets. No torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.request import ADDON_NAME_PATTERN

SUFFIX = ".safetensors"


def addon_files(model_dirs: Iterable[Path], folder: str) -> dict[str, Path]:
    """Name → file, over the folders of that name in the model directories; the first one wins."""
    return _named((path.stem, path) for path in _in_each(model_dirs, folder, f"*{SUFFIX}"))


def addon_folders(model_dirs: Iterable[Path], folder: str, holds: str) -> dict[str, Path]:
    """Likewise of folders that hold a file of that name."""
    inner = (path.parent for path in _in_each(model_dirs, folder, f"*/{holds}"))
    return _named((path.name, path) for path in inner)


def _in_each(model_dirs: Iterable[Path], folder: str, pattern: str) -> Iterator[Path]:
    for root in model_dirs:
        yield from sorted((root / folder).glob(pattern))


def _named(found: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for name, path in found:
        if re.fullmatch(ADDON_NAME_PATTERN, name):
            named.setdefault(name, path)
    return named


def find_addons(
    look: Callable[[], Mapping[str, Path]], names: Collection[str], what: str
) -> dict[str, str]:
    """Name → path of those that a job names. Raises BrokenModelError if one is not there.

    Args:
        look: reads what is there, name → path. Most jobs name none, and need no look.
    """
    files = look() if names else {}
    found: dict[str, str] = {}
    for name in names:
        if name not in files:
            raise BrokenModelError(f"there is no {what} {name!r} (any more)")
        found[name] = str(files[name])
    return found
