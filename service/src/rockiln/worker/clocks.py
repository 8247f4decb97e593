"""How long each thing may take. Pure: facts in, seconds out.

Progress is what the engine reports at each step; nothing else moves a clock on.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Self

from rockiln.domain.fault import Stage

if TYPE_CHECKING:
    from rockiln.settings import Settings

MEDIANS_ALLOWED = 8
_KEPT_TIMES = 64
_GIB = 1 << 30


@dataclass(frozen=True)
class Clocks:
    """The limits, seconds; each is the setting of its name + ``_seconds``.

    Attributes:
        model_load, gib_load: what loading a model adds, at least and for each GiB.
    """

    start: float
    model_load: float
    gib_load: float
    first_step: float
    step: float
    decode: float
    warm_up_decode: float
    encode: float
    attempt_deadline: float
    job_deadline: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(**{each.name: getattr(settings, f"{each.name}_seconds") for each in fields(cls)})

    def starting(self, model_bytes: int) -> float:
        """From the spawn of a child to its Ready, the model's load included."""
        return self.start + self.loading(model_bytes)

    def loading(self, model_bytes: int) -> float:
        """What loading a model may add to a clock."""
        return self.model_load + self.gib_load * model_bytes / _GIB

    def stage(
        self,
        stage: Stage,
        *,
        times: KeyTimes,
        warm_up: bool = False,
        load_bytes: int = 0,
        first_step: bool = False,
    ) -> Limit:
        """The limit of what the engine is doing now.

        Args:
            times: what is known of the job's key.
            warm_up: the job is there to fill the kernel caches, and may search as long as it takes.
            load_bytes: of a model that this child has still to load.
            first_step: no step of the attempt is done yet.
        """
        extra = self.loading(load_bytes) if load_bytes else 0.0
        match stage:
            case "encode":
                return Limit("encode", self.encode)
            case "decode" if warm_up:
                return Limit("warm_up_decode", max(self.warm_up_decode, self.decode) + extra)
            case "decode" if times.decode is None:
                # An honest first decode may search for kernels; what hangs goes to the next rung.
                return Limit("first_decode", max(self.first_step, self.decode) + extra)
            case "decode":
                usual = MEDIANS_ALLOWED * (times.decode or 0.0)
                return Limit("decode", max(self.decode, usual) + extra)
            case _:
                pass
        if times.step is None and first_step:
            return Limit("first_step", max(self.first_step, self.step) + extra)
        return Limit("step", max(self.step, MEDIANS_ALLOWED * (times.step or 0.0)) + extra)


@dataclass(frozen=True)
class Limit:
    """A clock's name and what it grants, seconds."""

    clock: str
    seconds: float


@dataclass(frozen=True)
class KeyTimes:
    """Medians of one key, seconds; None where none was measured."""

    step: float | None = None
    decode: float | None = None


class Medians:
    """Running medians of what one worker measured, per key."""

    def __init__(self) -> None:
        self._steps: dict[str, deque[float]] = {}
        self._decodes: dict[str, deque[float]] = {}

    def add_step(self, key: str, seconds: float) -> None:
        self._steps.setdefault(key, deque(maxlen=_KEPT_TIMES)).append(seconds)

    def add_decode(self, key: str, seconds: float) -> None:
        self._decodes.setdefault(key, deque(maxlen=_KEPT_TIMES)).append(seconds)

    def times(self, key: str, remembered: KeyTimes) -> KeyTimes:
        """What this worker measured, else what the store remembers."""
        return KeyTimes(
            step=_median(self._steps.get(key, ()), remembered.step),
            decode=_median(self._decodes.get(key, ()), remembered.decode),
        )


def _median(measured: Iterable[float], otherwise: float | None) -> float | None:
    values = list(measured)
    return statistics.median(values) if values else otherwise
