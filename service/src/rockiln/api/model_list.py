"""The models that requests may name."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rockiln.registry import Catalogue, load_catalogue
from rockiln.registry.revision import signature

_LOOK_AGAIN_SECONDS = 2.0


class ModelList:
    """Read once, and again after a folder appeared, went or changed.

    The worker reads its folders anew for a model that it does not know.

    Args:
        catalogue: what was read already, if it was.
    """

    def __init__(
        self,
        model_dirs: Sequence[Path],
        catalogue: Catalogue | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model_dirs = model_dirs
        self._monotonic = monotonic
        self._seen = self._look()
        self._catalogue = load_catalogue(model_dirs) if catalogue is None else catalogue
        self._looked_monotonic = monotonic()

    def current(self) -> Catalogue:
        if self._monotonic() - self._looked_monotonic >= _LOOK_AGAIN_SECONDS:
            self._looked_monotonic = self._monotonic()
            seen = self._look()
            if seen != self._seen:
                self._seen, self._catalogue = seen, load_catalogue(self._model_dirs)
        return self._catalogue

    def _look(self) -> frozenset[str]:
        """Changes with any file of a model; no file is opened."""
        return frozenset(
            signature(folder)
            for root in self._model_dirs
            if root.is_dir()
            for folder in root.iterdir()
            if folder.is_dir() and not folder.name.startswith(".")
        )
