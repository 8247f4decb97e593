"""A process that uses a store on a disk that fails again and again, and goes on by itself.

    python store_bad_disk.py DATA_DIR ACKS JOBS fill|injected

fill: before each call the disk is filled up to a few random pages.
injected: system calls fail under strace; nothing is done here to bring it about.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy.exc import DatabaseError

from rockiln.domain.errors import IllegalTransitionError, LeaseLostError
from rockiln.domain.fault import Fault, FaultCode
from rockiln.domain.job import JobState
from rockiln.settings import Settings
from rockiln.store.records import Job, Lease, Picture
from rockiln.store.store import Store
from support.parameters import parameters
from support.store_life import LIMITS, picture_bytes

T = TypeVar("T")
PAGE_BYTES = 4096
TRIES = 200


class BadDisk:
    """Runs calls until they succeed; counts what failed."""

    def __init__(self, root: Path, *, fill: bool) -> None:
        self.failures: dict[str, int] = {}
        self._filler = root / "filler"
        self._fill = fill
        self._chance = random.Random(7)  # noqa: S311 (no secret)

    def call(self, name: str, do: Callable[[], T]) -> T:
        for _ in range(TRIES):
            if self._fill:
                self._make_full()
            try:
                return do()
            except (OSError, DatabaseError) as error:
                kind = f"{name}: {type(getattr(error, 'orig', error)).__name__}"
                self.failures[kind] = self.failures.get(kind, 0) + 1
            finally:
                self._make_room()
            if not self._fill:
                time.sleep(0.001)
        raise AssertionError(f"{name} never succeeded: {self.failures}")

    def _make_full(self) -> None:
        if self._chance.random() < 0.3:
            return
        space = os.statvfs(self._filler.parent)
        spare = self._chance.choice([0, 0, 1, 2, 3, 4, 6, 8, 12, 20])
        pages = space.f_bavail - spare
        if pages > 0:
            with self._filler.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, pages * PAGE_BYTES)

    def _make_room(self) -> None:
        if self._fill:
            self._filler.unlink(missing_ok=True)


def main(root: Path, acks: Path, count: int, how: str) -> None:
    disk = BadDisk(root, fill=how == "fill")
    told = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def tell(*words: str) -> None:
        os.write(told, f"{' '.join(words)}\n".encode())

    store = Store(Settings(public_dir=root, data_dir=root))
    disk.call("prepare", store.prepare)
    for seed in range(count):
        job = disk.call("submit", lambda seed=seed: _submit(store, seed))  # type: ignore[misc]
        tell("accepted", job.id, str(seed))
    fault = Fault(FaultCode.STORAGE_FULL, "the disk is full")
    while (job := next(iter(_waiting(store)), None)) is not None:  # type: ignore[assignment]
        leased = disk.call("lease", lambda: store.jobs.lease_next(worker="w", seconds=600))
        if leased is None:
            disk.call("stale", lambda: store.jobs.end_stale_attempts(
                fault, max_attempts=1000, worker="w"))  # fmt: skip
            continue
        try:
            done = _make(store, disk, *leased)
            tell("published", done.id, str(done.pictures[0].digest))
        except (LeaseLostError, IllegalTransitionError):
            # A call that said it failed had been done after all: the attempt starts anew.
            disk.call("stale", lambda: store.jobs.end_stale_attempts(
                fault, max_attempts=1000, worker="w"))  # fmt: skip
    store.close()
    sys.stdout.write(f"{json.dumps(disk.failures)}\n")


def _submit(store: Store, seed: int) -> Job:
    return store.jobs.submit(
        parameters(seed=seed), limits=LIMITS, idempotency_key=f"k{seed}", request_digest="d"
    )


def _waiting(store: Store) -> list[Job]:
    return [job for job in store.jobs.page(limit=10_000) if not job.ended]


def _make(store: Store, disk: BadDisk, lease: Lease, job: Job) -> Job:
    data = picture_bytes(job.parameters.seed)
    jobs, artefacts = store.jobs, store.artefacts
    if job.pictures[0].latents is None:
        disk.call("step", lambda: jobs.record_step(lease, 0, 1))
        name = disk.call("put_latents", lambda: artefacts.put_latents(job.id, 0, data))
        disk.call("latents", lambda: jobs.record_latents(lease, 0, name))
    disk.call("decode", lambda: jobs.record_decode_started(lease, 0))
    digest = disk.call("put_picture", lambda: artefacts.put_picture(data, "png"))
    picture = Picture(0, JobState.PUBLISHED, 4, None, digest, len(data), {}, (), {})
    done = disk.call("publish", lambda: jobs.publish(lease, 0, picture))
    disk.call("drop_latents", lambda: artefacts.drop_latents(job.id))
    return done


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
