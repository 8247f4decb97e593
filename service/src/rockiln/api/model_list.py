"""The models that requests may name."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rockiln.registry import Catalogue, load_catalogue
from rockiln.registry.hub_cache import cached_models
from rockiln.registry.revision import signature

_LOOK_AGAIN_SECONDS = 2.0


class ModelList:
    """Read once, and again after a folder or a file appeared, went or changed.

    The worker reads its folders anew for a model that it does not know.

    Args:
        catalogue: what was read already, if it was.
        hub_cache: a cache of Hugging Face's library.
        quantisation_allowed: as the setting.
    """

    def __init__(
        self,
        model_dirs: Sequence[Path],
        catalogue: Catalogue | None = None,
        *,
        hub_cache: Path | None = None,
        quantisation_allowed: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model_dirs = model_dirs
        self._hub_cache = hub_cache
        self._quantisation_allowed = quantisation_allowed
        self._monotonic = monotonic
        self._seen = self._look()
        self._catalogue = self._load() if catalogue is None else catalogue
        self._looked_monotonic = monotonic()

    def current(self, *, at_once: bool = False) -> Catalogue:
        """What is there: as of some seconds ago, or of now."""
        if at_once or self._monotonic() - self._looked_monotonic >= _LOOK_AGAIN_SECONDS:
            self._looked_monotonic = self._monotonic()
            seen = self._look()
            if seen != self._seen:
                self._seen, self._catalogue = seen, self._load()
        return self._catalogue

    def _load(self) -> Catalogue:
        return load_catalogue(
            self._model_dirs, self._hub_cache, quantisation_allowed=self._quantisation_allowed
        )

    def _look(self) -> frozenset[str]:
        """Changes with any file of a model; no file is opened."""
        entries = [
            entry
            for root in self._model_dirs
            if root.is_dir()
            for entry in root.iterdir()
            if not entry.name.startswith(".")
        ]
        if self._hub_cache is not None:
            entries += [cached.folder for cached in cached_models(self._hub_cache)]
        return frozenset(signature(each) if each.is_dir() else _facts(each) for each in entries)


def _facts(file: Path) -> str:
    """Of a file, a model by itself or beside one; it may go while it is looked at."""
    try:
        status = file.lstat()
    except FileNotFoundError:
        return ""
    return f"{file}\0{status.st_size}\0{status.st_mtime_ns}"
