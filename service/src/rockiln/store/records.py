"""What the store hands out: plain values, detached from the database."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from rockiln.domain.job import FINAL_STATES, JobState
from rockiln.domain.ladder import Rungs
from rockiln.domain.request import GenerationParameters

# A picture for a client, or kernels compiled for a size before anybody asks for it.
Purpose = Literal["picture", "warm_up"]
# Of a waiting job, among those of its owner.
Move = Literal["first", "up", "down"]


@dataclass(frozen=True)
class Picture:
    """One picture. ``digest`` is set once it is published."""

    index: int
    state: JobState
    step: int = 0
    latents: str | None = None
    digest: str | None = None
    size_bytes: int | None = None
    details: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One job with its pictures, as of one moment.

    Attributes:
        owner: whose job it is; empty where nobody needs a key.
        rungs: what the next attempt has to use after a fault; None for no demand.
        killed_attempts: those that cost an engine.
    """

    seq: int
    id: str
    state: JobState
    parameters: GenerationParameters
    accepted_at: float
    pictures: tuple[Picture, ...]
    started_at: float | None = None
    ended_at: float | None = None
    attempt: int = 0
    cancel_requested: bool = False
    failure_code: str | None = None
    failure_detail: str | None = None
    owner: str = ""
    purpose: Purpose = "picture"
    estimated_seconds: float = 0.0
    rungs: dict[str, str] | None = None
    killed_attempts: int = 0

    @property
    def ended(self) -> bool:
        return self.state in FINAL_STATES


@dataclass(frozen=True)
class Lease:
    """The right to work on a job. Every write of the worker carries it; a stale one is refused."""

    job_id: str
    attempt: int
    owner: str


@dataclass(frozen=True)
class QueueLimits:
    """How much may wait. None means no bound.

    Attributes:
        max_seconds: sum of the estimates of waiting jobs.
        max_jobs_per_owner: so that nobody fills the queue alone.
    """

    max_jobs: int
    max_seconds: float | None = None
    max_jobs_per_owner: int | None = None


@dataclass(frozen=True)
class Queue:
    """Jobs that wait and jobs that run, and the sums of their estimates."""

    waiting: int
    running: int
    waiting_seconds: float
    running_seconds: float


@dataclass(frozen=True)
class Place:
    """Where a waiting job stands; ``position`` 1 is next."""

    position: int
    seconds_ahead: float


@dataclass(frozen=True)
class Event:
    """One line of the log of what happened to jobs."""

    seq: int
    job_id: str
    kind: str
    payload: dict[str, Any]
    at: float


@dataclass(frozen=True)
class EndedAttempt:
    """One attempt that ended without its pictures. ``evidence`` is a file name."""

    job_id: str
    attempt: int
    worker: str
    code: str
    stage: str | None
    detail: str
    rungs: dict[str, str] | None
    evidence: str | None
    at: float


@dataclass(frozen=True)
class RememberedRungs:
    """What worked last for a key; medians run over its successes."""

    key: str
    rungs: Rungs
    successes: int
    step_seconds: float | None
    decode_seconds: float | None
    peak_bytes: int | None
    at: float


@dataclass(frozen=True)
class Refusal:
    """A kind of request that is refused until ``until``, and the job that was the last."""

    fingerprint: str
    until: float
    job_id: str
    code: str
    detail: str


class WorkerState(StrEnum):
    """What a worker is up to."""

    STARTING = "starting"
    READY = "ready"
    BUSY = "busy"
    FAILED = "failed"
    WEDGED = "wedged"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Worker:
    """A worker's last word.

    Attributes:
        proof_at: when a picture was last made and found good.
        health: clocks, rungs in use, restart budget, as the worker shows them.
    """

    name: str
    state: WorkerState
    detail: str
    device: dict[str, Any] | None
    versions: dict[str, Any] | None
    heartbeat_at: float
    proof_at: float | None
    health: dict[str, Any] | None = None
