"""The job in hand: where it is, since when, and how long that may last."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

from rockiln.domain.fault import Stage
from rockiln.domain.ladder import Rungs
from rockiln.domain.model import ModelProfile
from rockiln.domain.plan import Plan
from rockiln.store.records import Job, Lease
from rockiln.worker.clocks import KeyTimes, Limit
from rockiln.worker.protocol import Ready


@dataclass(frozen=True)
class Choice:
    """How an attempt is made.

    Attributes:
        key: text of the RungKey that its times and rungs are remembered under.
        remembered: what worked for this key before.
        trial: one rung up from there is tried, to see whether the host has recovered.
        times: what the store knows of this key.
    """

    plan: Plan
    key: str
    remembered: Rungs | None
    trial: bool
    times: KeyTimes


@dataclass
class Attempt:
    """One attempt. All times are monotonic seconds.

    Attributes:
        model: with the ControlNets that work beside it.
        lora_files, embedding_files, controlnet_files: name → path of each that the job names.
        running: it was sent to the engine; before, it waits for an engine that suits it.
        taken: the engine has read it.
        ready: what the engine said of itself when the attempt was planned; of its device what
            pinned models leave to the job.
        lost: another attempt owns the job now; the engine is being told.
        undenoised: pictures whose final latents are not on disk yet.
        draining: it is being dropped because the worker stops.
    """

    lease: Lease
    job: Job
    model: ModelProfile
    lora_files: dict[str, str]
    embedding_files: dict[str, str]
    controlnet_files: dict[str, str]
    choice: Choice
    ready: Ready
    ends: float
    job_ends: float
    stage: Stage = "start"
    running: bool = False
    taken: bool = False
    lost: bool = False
    draining: bool = False
    limit: Limit | None = None
    stage_ends: float | None = None
    cancel_ends: float | None = None
    step_recorded: float = 0.0
    steps_left: int = 0
    undenoised: set[int] = field(default_factory=set)
    steps: list[float] = field(default_factory=list)
    decodes: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    _step_at: dict[int, float] = field(default_factory=dict)
    _decode_at: float | None = None

    def enter(self, stage: Stage, limit: Limit, now: float) -> None:
        """The engine has got to a stage: its clock starts."""
        self.stage, self.limit, self.stage_ends = stage, limit, now + limit.seconds

    def step_done(self, index: int, steps_left: int, now: float) -> float | None:
        """Seconds since the picture's step before; None for its first."""
        before, self._step_at[index] = self._step_at.get(index), now
        self.steps_left = steps_left
        if before is None:
            return None
        self.steps.append(now - before)
        return now - before

    def decode_began(self, now: float) -> None:
        self._decode_at = now

    def decode_done(self, now: float) -> float | None:
        """Seconds since the decode began; None if that is known already."""
        if self._decode_at is None:
            return None
        seconds, self._decode_at = now - self._decode_at, None
        self.decodes.append(seconds)
        return seconds

    def expired(self, now: float) -> tuple[str, str] | None:
        """The clock that has run out and what to say of it."""
        if now >= self.job_ends:
            return "job", "the job took longer than all its attempts may"
        if now >= self.ends:
            return "attempt", "the attempt took longer than one may"
        if self.limit is not None and self.stage_ends is not None and now >= self.stage_ends:
            words = f"no progress for {self.limit.seconds:g} s (clock {self.limit.clock})"
            return self.limit.clock, words
        return None

    @property
    def denoised(self) -> bool:
        """Whether no step is left to do."""
        return self.stage in {"decode", "encode"}

    @property
    def median_step(self) -> float | None:
        return statistics.median(self.steps) if self.steps else None

    @property
    def median_decode(self) -> float | None:
        return statistics.median(self.decodes) if self.decodes else None

    def as_dict(self, now: float) -> dict[str, Any]:
        """For the worker's record: which clock runs, and how long still."""
        return {
            "job_id": self.job.id,
            "stage": self.stage,
            "rungs": self.choice.plan.rungs.as_dict(),
            "trial": self.choice.trial,
            "clock": None if self.limit is None else self.limit.clock,
            "clock_left_seconds": None
            if self.stage_ends is None
            else round(self.stage_ends - now, 1),
        }
