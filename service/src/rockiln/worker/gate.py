"""Whether this worker may start: what the host says is installed against what is really here."""

from __future__ import annotations

import json
import time

import structlog

from rockiln.doctor.agreement import agreement, measure_here
from rockiln.doctor.alignment import mismatches, told
from rockiln.doctor.gpu_facts import Roots, gpu_facts
from rockiln.settings import Settings
from rockiln.store.records import Worker, WorkerState
from rockiln.store.store import Store

log = structlog.get_logger()

EXIT_MISALIGNED = 4


def alignment(settings: Settings, *, roots: Roots | None = None) -> list[dict[str, str]]:
    """Layers by ``host.json``; empty where the provisioning wrote none.

    Raises:
        ValueError: ``host.json`` is there and is not JSON.
    """
    try:
        host = json.loads((settings.public_dir / "host.json").read_bytes())
    except OSError:
        return []
    inside = measure_here(settings)
    return agreement(host, settings, inside=inside, gpu=gpu_facts(roots or Roots())) or []


def refuses(settings: Settings, store: Store) -> bool:
    """Whether a layer does not agree; then the worker's record names it, for ``/readyz``."""
    wrong = mismatches(alignment(settings))
    if not wrong:
        return False
    detail = "; ".join(told(each) for each in wrong)
    log.error("worker.refused", reason=f"misaligned: {detail}", next=wrong[0]["fix"])
    store.workers.report(
        Worker(
            name=settings.worker_name,
            state=WorkerState.FAILED,
            detail=f"misaligned: {detail}",
            device=None,
            versions=None,
            heartbeat_at=time.time(),
            proof_at=None,
            health={"misaligned": wrong},
        )
    )
    return True
