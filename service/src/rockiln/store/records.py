"""What the store hands out: plain values, detached from the database."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rockiln.domain.job import FINAL_STATES, JobState
from rockiln.domain.request import GenerationParameters


@dataclass(frozen=True)
class Picture:
    """One picture. ``digest`` is set once it is published."""

    index: int
    state: JobState
    step: int
    latents: str | None
    digest: str | None
    size_bytes: int | None
    details: dict[str, Any]
    warnings: tuple[str, ...]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Job:
    """One job with its pictures, as of one moment."""

    seq: int
    id: str
    state: JobState
    parameters: GenerationParameters
    accepted_at: float
    started_at: float | None
    ended_at: float | None
    attempt: int
    cancel_requested: bool
    failure_code: str | None
    failure_detail: str | None
    pictures: tuple[Picture, ...]

    @property
    def ended(self) -> bool:
        return self.state in FINAL_STATES


@dataclass(frozen=True)
class Lease:
    """The right to work on a job. Every write of the worker carries it; a stale one is refused."""

    job_id: str
    attempt: int
    owner: str


class WorkerState(StrEnum):
    """What a worker is up to."""

    STARTING = "starting"
    READY = "ready"
    BUSY = "busy"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Worker:
    """A worker's last word. ``proof_at``: when a picture was last made and found good."""

    name: str
    state: WorkerState
    detail: str
    device: dict[str, Any] | None
    versions: dict[str, Any] | None
    heartbeat_at: float
    proof_at: float | None
