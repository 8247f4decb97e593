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
from rockiln.api.json_answers import answer
from rockiln.api.readiness import worker_fault
from rockiln.api.services import Services, services
from rockiln.domain.request import (
    GUIDANCE_MAX,
    NUM_IMAGES_MAX,
    PROMPT_MAX_CHARS,
    SCHEDULER_NAMES,
    SIDE_GRID_PX,
    SIDE_MAX_PX,
    SIDE_MIN_PX,
    STEPS_MAX,
)
from rockiln.settings import Settings
from rockiln.store.records import Worker

blueprint = Blueprint("system", __name__)


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
    heartbeat_age_seconds: float
    proof_age_seconds: float | None = Field(
        description="Since it last made a picture that was found good."
    )


class Disk(BaseModel):
    """Space on the data disk."""

    free_bytes: int
    floor_bytes: int


class SystemDocument(BaseModel):
    """Versions, workers, limits and clocks."""

    versions: dict[str, str]
    backend: str
    compute_device: str
    workers: list[WorkerDocument]
    queue: dict[str, int]
    disk: Disk
    limits: dict[str, Any]
    clocks: dict[str, float] = Field(description="Seconds.")
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
    store, settings = held.store, held.settings
    return answer(
        SystemDocument(
            versions={"rockiln": __version__, "python": platform.python_version()},
            backend=settings.backend,
            compute_device=settings.compute_device,
            workers=[_worker(worker, held) for worker in store.workers.all()],
            queue=asdict(store.jobs.queue()),
            disk=Disk(
                free_bytes=store.artefacts.free_bytes(), floor_bytes=settings.min_free_disk_bytes
            ),
            limits=limits(settings),
            clocks=clocks(settings),
            host=read_host_facts(settings.public_dir / "host.json"),
        )
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
        "waiting_calls": settings.waiting_slots,
        "attempts": settings.max_attempts,
    }


def clocks(settings: Settings) -> dict[str, float]:
    """Every clock, in seconds."""
    return {
        "wait": settings.wait_seconds,
        "worker_stale": settings.worker_stale_seconds,
        "child_start": settings.start_seconds,
        "attempt_deadline": settings.attempt_deadline_seconds,
        "lease": settings.lease_seconds,
        "cancel_grace": settings.cancel_grace_seconds,
    }


def read_host_facts(path: Path) -> dict[str, Any] | None:
    """The facts file; one that cannot be read is told, not hidden."""
    try:
        facts = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        return {"error": f"{path} cannot be read: {type(error).__name__}"}
    return facts if isinstance(facts, dict) else {"error": f"{path} is not a JSON object"}


def _worker(worker: Worker, held: Services) -> WorkerDocument:
    now = held.clock()
    fault = worker_fault(worker, now=now, stale_after_seconds=held.settings.worker_stale_seconds)
    return WorkerDocument(
        name=worker.name,
        working=fault is None,
        fault=fault,
        state=worker.state,
        detail=worker.detail,
        device=worker.device,
        on_gpu=None if worker.device is None else worker.device.get("kind") == "gpu",
        versions=worker.versions,
        heartbeat_age_seconds=round(now - worker.heartbeat_at, 3),
        proof_age_seconds=None if worker.proof_at is None else round(now - worker.proof_at, 3),
    )
