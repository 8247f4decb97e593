"""Which shared libraries are mapped into this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_PATH_COLUMN = 5


def duplicate_libraries(
    stems: Sequence[str], maps: Path = Path("/proc/self/maps")
) -> dict[str, list[str]]:
    """Stem → the different files mapped under it, for stems with more than one.

    Args:
        stems: names before ``.so``, such as "libamdhip64".
        maps: a ``/proc/<pid>/maps`` file.
    """
    found: dict[str, set[str]] = {stem: set() for stem in stems}
    for line in maps.read_text(encoding="utf-8", errors="replace").splitlines():
        columns = line.split(maxsplit=_PATH_COLUMN)
        if len(columns) <= _PATH_COLUMN:
            continue
        path = columns[_PATH_COLUMN].removesuffix(" (deleted)")
        stem = Path(path).name.split(".so", maxsplit=1)[0]
        if stem in found:
            found[stem].add(path)
    return {stem: sorted(paths) for stem, paths in found.items() if len(paths) > 1}
