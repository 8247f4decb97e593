"""``rockiln warmup``: fills the kernel caches for sizes that will be asked for.

MIOpen searches and compiles at the first picture of each size, for minutes. A warm-up is a job of
its own clock: it makes one picture of each size, publishes nothing, and marks the size as warmed.
"""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import dataclass

from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError

from rockiln.api.readiness import check_workers
from rockiln.cli.exit_codes import FAILED, USAGE
from rockiln.domain.errors import InvalidRequestError, QueueFullError
from rockiln.domain.model import ModelProfile
from rockiln.domain.request import GenerationRequest
from rockiln.domain.resolution import resolve
from rockiln.registry import load_catalogue
from rockiln.settings import Settings
from rockiln.store.records import Job, QueueLimits, WorkerState
from rockiln.store.store import Store

_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
_STEPS = 2
_POLL_SECONDS = 0.5
_OWNER = "warmup"


@dataclass(frozen=True)
class Warmed:
    """One size: how it ended and how long it took."""

    size: str
    state: str
    seconds: float
    detail: str


def run_warmup(settings: Settings, model_id: str, sizes: str, *, json_output: bool) -> int:
    """Warms one size after the other. 0: all are warm; 1: one failed; 2: wrong command line."""
    catalogue = load_catalogue(
        settings.model_dirs,
        settings.hub_cache_dir,
        quantisation_allowed=settings.quantisation_allowed,
    )
    model = catalogue.models.get(model_id)
    if model is None:
        return _refuse(f"no model {model_id!r} on this host")
    try:
        requests = [_request(model, size) for size in sizes.split(",")]
    except (ValueError, InvalidRequestError) as error:
        return _refuse(str(error))
    store = Store(settings)
    try:
        fault = _no_worker(store, settings)
        if fault:
            print(f"rockiln: no worker to warm up: {fault}\nnext: rockiln doctor", file=sys.stderr)
            return FAILED
        results = [_warm(store, settings, model, request) for request in requests]
    except (OSError, QueueFullError) as error:
        print(f"rockiln: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("rockiln: interrupted; the size at work is finished all the same", file=sys.stderr)
        return FAILED
    finally:
        store.close()
    if json_output:
        print(json.dumps({"model": model_id, "sizes": [vars(result) for result in results]}))
    return 0 if all(result.state == "done" for result in results) else FAILED


def _no_worker(store: Store, settings: Settings) -> str:
    """Why a job would wait in vain; empty if it would not."""
    try:
        workers = store.workers.all()
    except DBAPIError as error:
        return f"the store cannot be read: {error.orig}"
    now, stale_seconds = time.time(), settings.worker_stale_seconds
    seen = check_workers(workers, now=now, stale_after_seconds=stale_seconds)
    starting = any(
        worker.state is WorkerState.STARTING and now - worker.heartbeat_at <= stale_seconds
        for worker in workers
    )
    return "" if seen.ok or starting else seen.detail


def _request(model: ModelProfile, size: str) -> GenerationRequest:
    match = _SIZE.fullmatch(size.strip())
    if match is None:
        raise ValueError(f"{size!r} is no size; write WIDTHxHEIGHT, such as 512x512")
    try:
        request = GenerationRequest(
            prompt="a warm-up",
            width=int(match[1]),
            height=int(match[2]),
            num_inference_steps=_STEPS,
            model=model.id,
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"{size}: {first['loc'][0]}: {first['msg']}") from error
    resolve(request, model, seed=0, picture_format="png")
    return request


def _warm(
    store: Store, settings: Settings, model: ModelProfile, request: GenerationRequest
) -> Warmed:
    parameters = resolve(request, model, seed=0, picture_format="png")
    size = f"{parameters.width}x{parameters.height}"
    begun = time.monotonic()
    job = store.jobs.submit(
        parameters,
        owner=_OWNER,
        purpose="warm_up",
        limits=QueueLimits(max_jobs=settings.queue_max_jobs),
        estimated_seconds=0.0,
    )
    store.wake("worker")
    print(f"{model.id} {size}: waiting for the worker", file=sys.stderr)
    job = _wait(store, job)
    seconds = round(time.monotonic() - begun, 1)
    detail = job.failure_detail or ""
    print(f"{model.id} {size}: {job.state.value} in {seconds} s {detail}".rstrip(), file=sys.stderr)
    return Warmed(size, job.state.value, seconds, detail)


def _wait(store: Store, job: Job) -> Job:
    """Until the job has ended: its own clocks bound it."""
    while not job.ended:
        time.sleep(_POLL_SECONDS)
        job = store.jobs.get(job.id)
    return job


def _refuse(reason: str) -> int:
    print(f"rockiln: {reason}", file=sys.stderr)
    return USAGE
