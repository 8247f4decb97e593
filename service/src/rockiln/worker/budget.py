"""When a dead engine may be followed by the next one, and when no longer. Pure."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

FAILED_STARTS_ALLOWED = 3
HEALTHY_SECONDS = 600.0
_JITTER = 0.25


class RestartBudget:
    """Back-off between engines, and a limit on deaths in a window of time.

    Attributes:
        wedged: why no engine is trusted with a job until one has proven the device; empty: none.

    Args:
        deaths_allowed: within ``window_seconds``; one more and the device counts as wedged.
        first_seconds, max_seconds: of the back-off, which doubles with each death in a row.
        probe_seconds: between two proofs of a wedged device.
        chance: a number from 0 to 1, for the jitter.
    """

    def __init__(
        self,
        *,
        deaths_allowed: int,
        window_seconds: float,
        first_seconds: float,
        max_seconds: float,
        probe_seconds: float,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._deaths_allowed = deaths_allowed
        self._window_seconds = window_seconds
        self._first_seconds = first_seconds
        self._max_seconds = max_seconds
        self._probe_seconds = probe_seconds
        self._chance = chance
        self._deaths: deque[float] = deque()
        self._in_a_row = 0
        self._failed_starts = 0
        self._proven_at: float | None = None
        self._doubted = False
        self.wedged = ""
        self.backoff_seconds = 0.0

    def died(self, now: float, *, proven: bool, doubts_device: bool) -> float:
        """Takes a death in; returns how long to wait before the next start, seconds.

        Args:
            proven: the engine had said Ready before, or was not let.
            doubts_device: the device may not work any more; the next proof decides.
        """
        self._note_health(now)
        self._deaths.append(now)
        self._failed_starts = 0 if proven else self._failed_starts + 1
        self._in_a_row += 1
        self._proven_at = None
        deaths = self.deaths_in_window(now)
        if deaths > self._deaths_allowed:
            self.wedged = f"{deaths} engines died within {self._window_seconds:g} s"
        elif self._failed_starts >= FAILED_STARTS_ALLOWED:
            self.wedged = f"{self._failed_starts} engines in a row did not start"
        elif self._doubted and not proven:
            self.wedged = "the device failed its proof after a fault"
        self._doubted = self._doubted or doubts_device
        if self.wedged:
            self.backoff_seconds = self._probe_seconds
            return self.backoff_seconds
        return self._next_backoff()

    def postpone(self) -> float:
        """A start that could not even be tried: the wait before the next try, seconds."""
        self._in_a_row += 1
        return self._next_backoff()

    def proven(self, now: float) -> None:
        """A fresh engine made its proof picture: the device is trusted again."""
        self._proven_at = now
        self._failed_starts = 0
        self._doubted = False
        if self.wedged:
            self._deaths.clear()
        self.wedged = ""

    def done(self) -> None:
        """A job ended well: the next death starts the back-off anew."""
        self._in_a_row = 0
        self.backoff_seconds = 0.0

    def deaths_in_window(self, now: float) -> int:
        while self._deaths and self._deaths[0] <= now - self._window_seconds:
            self._deaths.popleft()
        return len(self._deaths)

    def as_dict(self, now: float) -> dict[str, float]:
        """For the worker's record."""
        return {
            "deaths_in_window": self.deaths_in_window(now),
            "budget": self._deaths_allowed,
            "window_seconds": self._window_seconds,
            "backoff_seconds": round(self.backoff_seconds, 3),
        }

    def _next_backoff(self) -> float:
        doubled = self._first_seconds * 2 ** min(self._in_a_row - 1, 30)
        spread = 1 + _JITTER * (2 * self._chance() - 1)
        self.backoff_seconds = min(doubled, self._max_seconds) * spread
        return self.backoff_seconds

    def _note_health(self, now: float) -> None:
        if self._proven_at is not None and now - self._proven_at >= HEALTHY_SECONDS:
            self._in_a_row = 0
