"""How far a job is and how long it will take, read off its log."""

from __future__ import annotations

from dataclasses import dataclass, field

from rockiln.store.records import Event

_STEP = "step"
_NEW_ATTEMPT = "leased"


@dataclass
class ProgressMeter:
    """Told of a job's events in their order.

    Args:
        pictures: of the job.
    """

    pictures: int
    _steps: dict[int, int] = field(default_factory=dict)
    _first: tuple[float, int] | None = None

    def eta_seconds(self, event: Event) -> float | None:
        """Time to the last step of the last picture; None for other events, and at a first step."""
        if event.kind == _NEW_ATTEMPT:
            self._first = None
        if event.kind != _STEP:
            return None
        self._steps[event.payload["index"]] = event.payload["step"]
        done = sum(self._steps.values())
        left: int = self.pictures * event.payload["steps"] - done
        if self._first is None:
            self._first = (event.at, done)
        since, before = self._first
        if done <= before:
            return None
        return round(max(0.0, (event.at - since) / (done - before) * left), 1)
