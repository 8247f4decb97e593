"""The models that requests may name."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rockiln.registry import Catalogue, load_catalogue

_LOOK_AGAIN_SECONDS = 2.0


class ModelList:
    """Read once, as the worker does; read again only while there is no model at all.

    A model that the worker has not read yet must not be offered: its jobs would fail.

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
        self._catalogue = load_catalogue(model_dirs) if catalogue is None else catalogue
        self._read_monotonic = monotonic()

    def current(self) -> Catalogue:
        age_seconds = self._monotonic() - self._read_monotonic
        if not self._catalogue.models and age_seconds >= _LOOK_AGAIN_SECONDS:
            self._read_monotonic = self._monotonic()
            self._catalogue = load_catalogue(self._model_dirs)
        return self._catalogue
