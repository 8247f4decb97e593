"""What this installation is made of and how it stands."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flask import Blueprint, Response
from pydantic import BaseModel, Field

from rockiln import __version__
from rockiln.api.describe import Answered, Operation, describe
from rockiln.api.documents import AttemptDocument, attempt_document
from rockiln.api.json_answers import answer
from rockiln.api.problems import kind_of_failure
from rockiln.api.readiness import worker_fault
from rockiln.api.services import services
from rockiln.domain.request import (
    GUIDANCE_MAX,
    NUM_IMAGES_MAX,
    PROMPT_MAX_CHARS,
    SIDE_GRID_PX,
    SIDE_MAX_PX,
    SIDE_MIN_PX,
    STEPS_MAX,
)
from rockiln.domain.sampling import SCHEDULER_NAMES
from rockiln.settings import Settings
from rockiln.store.records import EndedAttempt, Worker
from rockiln.store.store import Store

blueprint = Blueprint("system", __name__)

_SHOWN = 20


class WorkerDocument(BaseModel):
    """What a worker last said of itself."""

    name: str
    working: bool
    fault: str | None = Field(description="Why it cannot be counted on, if it cannot.")
    state: str
    detail: str
    device: dict[str, Any] | None
    on_gpu: bool | None = Field(description="Whether it computes on a GPU; null if not known.")
    versions: dict[str, Any] | None
    health: dict[str, Any] | None = Field(
        description="Its job and clock in hand, restart budget, last fault, and the models in "
        "memory (the one unused longest first), as it says itself."
    )
    heartbeat_age_seconds: float
    proof_age_seconds: float | None = Field(
        description="Since it last made a picture that was found good."
    )


class Disk(BaseModel):
    """Space on the data disk."""

    free_bytes: int
    floor_bytes: int


class QueueLoad(BaseModel):
    """Jobs, and the sums of their estimates in seconds of a device."""

    waiting: int
    running: int
    waiting_seconds: float
    running_seconds: float


class RungsDocument(BaseModel):
    """The way of working that is remembered for one kind of job."""

    key: str
    rungs: dict[str, str]
    successes: int
    step_seconds: float | None
    decode_seconds: float | None
    peak_bytes: int | None


class FaultDocument(AttemptDocument):
    """A failed attempt, with whom it struck and what to do."""

    job_id: str
    worker: str
    next_step: str


class RefusalDocument(BaseModel):
    """A kind of request that is refused for a while."""

    job_id: str
    reason: str
    detail: str
    seconds_left: float


class SystemDocument(BaseModel):
    """Versions, workers, limits and clocks."""

    versions: dict[str, str]
    backend: str
    compute_device: str
    workers: list[WorkerDocument]
    queue: QueueLoad
    disk: Disk
    limits: dict[str, Any]
    clocks: dict[str, float] = Field(description="Seconds.")
    rungs: list[RungsDocument] = Field(description="Kinds of job made last, newest first.")
    faults: list[FaultDocument] = Field(description="Attempts that failed last, newest first.")
    refusals: list[RefusalDocument]
    host: dict[str, Any] | None = Field(
        description="Facts that the provisioning wrote, or null where it wrote none."
    )


@blueprint.get("/system")
@describe(
    Operation(
        summary="Versions, workers, limits, clocks, queue and disk",
        answers={200: Answered("All of it.", {"application/json": SystemDocument})},
        problems=("store-unavailable",),
    )
)
def get_system() -> Response:
    held = services()
    return answer(system_document(held.store, held.settings, now=held.clock()))


def system_document(store: Store, settings: Settings, *, now: float) -> SystemDocument:
    """All of it, as of ``now``, in seconds since the epoch."""
    return SystemDocument(
        versions={"rockiln": __version__, "python": platform.python_version()},
        backend=settings.backend,
        compute_device=settings.compute_device,
        workers=[_worker(worker, settings, now) for worker in store.workers.all()],
        queue=QueueLoad(**asdict(store.jobs.queue())),
        disk=Disk(
            free_bytes=store.artefacts.free_bytes(), floor_bytes=settings.min_free_disk_bytes
        ),
        limits=limits(settings),
        clocks=settings.clocks,
        rungs=[
            RungsDocument(**{**vars(known), "rungs": known.rungs.as_dict()})
            for known in store.rungs.all(_SHOWN)
        ],
        faults=[_fault(attempt) for attempt in store.attempts.latest(_SHOWN)],
        refusals=[
            RefusalDocument(
                job_id=refusal.job_id,
                reason=refusal.code,
                detail=refusal.detail,
                seconds_left=round(refusal.until - now, 1),
            )
            for refusal in store.refusals.all(now)
        ],
        host=read_host_facts(settings.public_dir / "host.json"),
    )


def limits(settings: Settings) -> dict[str, Any]:
    """Every limit of a request and of the queue; a model may set narrower sides."""
    return {
        "body_bytes": settings.max_body_bytes,
        "prompt_characters": PROMPT_MAX_CHARS,
        "side_px": {"min": SIDE_MIN_PX, "max": SIDE_MAX_PX, "multiple_of": SIDE_GRID_PX},
        "steps": STEPS_MAX,
        "guidance_scale": GUIDANCE_MAX,
        "num_images": NUM_IMAGES_MAX,
        "schedulers": list(SCHEDULER_NAMES),
        "waiting_jobs": settings.queue_max_jobs,
        "waiting_jobs_per_owner": settings.queue_max_jobs_per_owner,
        "waiting_seconds": settings.queue_max_seconds,
        "waiting_calls": settings.waiting_slots,
        "attempts": settings.max_attempts,
    }


def _fault(attempt: EndedAttempt) -> FaultDocument:
    return FaultDocument(
        **attempt_document(attempt).model_dump(),
        job_id=attempt.job_id,
        worker=attempt.worker,
        next_step=kind_of_failure("failed", attempt.code).hint,
    )


def read_host_facts(path: Path) -> dict[str, Any] | None:
    """The facts file; one that cannot be read is told, not hidden."""
    try:
        facts = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        return {"error": f"{path} cannot be read: {type(error).__name__}"}
    return facts if isinstance(facts, dict) else {"error": f"{path} is not a JSON object"}


def _worker(worker: Worker, settings: Settings, now: float) -> WorkerDocument:
    fault = worker_fault(worker, now=now, stale_after_seconds=settings.worker_stale_seconds)
    return WorkerDocument(
        name=worker.name,
        working=fault is None,
        fault=fault,
        state=worker.state,
        detail=worker.detail,
        device=worker.device,
        on_gpu=None if worker.device is None else worker.device.get("kind") == "gpu",
        versions=worker.versions,
        health=worker.health,
        heartbeat_age_seconds=round(now - worker.heartbeat_at, 3),
        proof_age_seconds=None if worker.proof_at is None else round(now - worker.proof_at, 3),
    )
