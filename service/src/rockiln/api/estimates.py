"""How long a job will take, judged by those that ran before."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from rockiln.domain.request import GenerationParameters, steps_run
from rockiln.store.jobs import JobStore

# For the very first job of a host: a small picture on a processor.
UNKNOWN_SECONDS = 30.0
_SAMPLES = 50
_KEPT_SECONDS = 5.0


class Estimator:
    """Seconds a job takes a device: work as it was, scaled to the work that is asked for."""

    def __init__(self, jobs: JobStore, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._jobs = jobs
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._rates: dict[str, float] = {}
        self._read_at = -_KEPT_SECONDS

    def seconds(self, parameters: GenerationParameters) -> float:
        """By jobs of the same model, else by those of any, else a guess."""
        rates = self._current()
        rate = rates.get(parameters.model, rates.get(""))
        return UNKNOWN_SECONDS if rate is None else round(rate * work(parameters), 3)

    def _current(self) -> dict[str, float]:
        with self._lock:
            now = self._monotonic()
            if now - self._read_at >= _KEPT_SECONDS:
                self._read_at = now
                self._rates = _rates(self._jobs.durations(_SAMPLES))
            return self._rates


def work(parameters: GenerationParameters) -> float:
    """Pixels that pass the network: steps x samples x pixels, over all passes.

    A ControlNet is about half a network more.
    """
    samples = parameters.num_images * (2 if parameters.guided else 1)
    networks = 1 + len(parameters.controlnets) / 2
    first = steps_run(parameters.num_inference_steps, parameters.strength)
    pixels = first * parameters.width * parameters.height
    hires = parameters.hires
    if hires is not None:
        pixels += steps_run(hires.num_inference_steps, hires.strength) * hires.width * hires.height
    return samples * networks * pixels


def _rates(samples: Iterable[tuple[GenerationParameters, float]]) -> dict[str, float]:
    """Seconds per unit of work, per model, and over all under the empty name."""
    sums: dict[str, tuple[float, float]] = {}
    for parameters, seconds in samples:
        for name in (parameters.model, ""):
            spent, done = sums.get(name, (0.0, 0.0))
            sums[name] = (spent + seconds, done + work(parameters))
    return {name: spent / done for name, (spent, done) in sums.items() if done}
