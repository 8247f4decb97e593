"""Whether a picture could be made now, judged from records alone. Nothing is run to find out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rockiln.settings import Settings
from rockiln.store.artefacts import INODES_KEPT
from rockiln.store.records import Worker, WorkerState
from rockiln.store.store import Store

_WORKING = frozenset({WorkerState.READY, WorkerState.BUSY})


@dataclass(frozen=True)
class Check:
    """One thing that must hold."""

    name: str
    ok: bool
    detail: str


def checks(settings: Settings, store: Store, *, now: float) -> list[Check]:
    """Every check, in the order of a repair: the disk, the store, then the worker."""
    return [
        check_disk(
            store.artefacts.free_bytes(),
            floor_bytes=settings.min_free_disk_bytes,
            free_inodes=store.artefacts.free_inodes(),
        ),
        check_store(settings, store.database.file),
        check_workers(
            store.workers.all(), now=now, stale_after_seconds=settings.worker_stale_seconds
        ),
    ]


def check_disk(free_bytes: int, *, floor_bytes: int, free_inodes: int | None = None) -> Check:
    if free_inodes is not None and free_inodes < INODES_KEPT:
        return Check("disk", False, f"{free_inodes} free inodes, the floor is {INODES_KEPT}")
    ok = free_bytes >= floor_bytes
    words = "free bytes are at least" if ok else "free bytes are less than"
    return Check("disk", ok, f"{free_bytes} {words} the floor of {floor_bytes}")


def check_store(settings: Settings, database: Path | None) -> Check:
    """Rights and read-only mounts; a probe that wrote would wait in line with real work.

    Args:
        database: its file; None on a server, which the next check asks about workers.
    """
    for path in (settings.store_dir, database, settings.artefacts_dir):
        if path is not None and not os.access(path, os.W_OK):
            return Check("store", False, f"{path} cannot be written")
    return Check("store", True, "writable")


def check_workers(workers: Sequence[Worker], *, now: float, stale_after_seconds: float) -> Check:
    """One worker that works is enough."""
    if not workers:
        return Check("worker", False, "no worker has reported yet")
    faults = {
        worker.name: worker_fault(worker, now=now, stale_after_seconds=stale_after_seconds)
        for worker in workers
    }
    working = [name for name, fault in faults.items() if fault is None]
    if working:
        return Check("worker", True, ", ".join(working))
    return Check("worker", False, "; ".join(f"{name}: {fault}" for name, fault in faults.items()))


def worker_fault(worker: Worker, *, now: float, stale_after_seconds: float) -> str | None:
    """Why a worker cannot be counted on, or None: alive, and its last proof of work was good."""
    if (worker.health or {}).get("misaligned"):
        return worker.detail  # it refused to start and is silent since: why counts
    silent_seconds = now - worker.heartbeat_at
    if silent_seconds > stale_after_seconds:
        return f"silent for {silent_seconds:.0f} s, last {worker.state}"
    if worker.state not in _WORKING:
        return f"{worker.state}: {worker.detail}" if worker.detail else str(worker.state)
    if worker.proof_at is None:
        return "it has made no picture yet"
    return None
