"""Whether this worker may start: what the host says is installed against what is really here."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import structlog

from rockiln.doctor.alignment import compare, mismatches, told
from rockiln.doctor.environment_rules import lint_environment
from rockiln.doctor.gpu_facts import Roots, gpu_facts
from rockiln.doctor.inside import measure
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
    row: dict[str, Any] | None = host.get("row")
    if not row:
        return []
    gpu = gpu_facts(roots or Roots())
    inside = measure(Path("/"), sys.path, {**os.environ, **settings.engine_environment})
    gfx = next((each["gfx"] for each in gpu["gpus"] if each["uuid"] == gpu["chosen"]), "")
    return compare(
        host["release"],
        row,
        inside=inside,
        gpu=gpu,
        drivers=host.get("drivers"),
        settings={"backend": settings.backend, "compute_device": settings.compute_device},
        lint=lint_environment(
            inside["environment"],
            torch_version=(inside["torch"] or {}).get("version", ""),
            gfx=gfx,
            row=row,
        ),
    )


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
