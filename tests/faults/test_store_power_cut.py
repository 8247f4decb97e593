"""R13: power cuts at recorded write and fsync boundaries; every promise that was given is kept."""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.exc import DatabaseError

from rockiln.domain.errors import RockilnError, UnknownJobError
from rockiln.domain.fault import Fault, FaultCode
from rockiln.domain.job import WAITING_STATES
from rockiln.settings import Settings
from rockiln.store.schema import StoreRefusedError
from rockiln.store.store import Store
from support import store_workload
from support.power_cut import Call, Disk, record
from support.store_life import work

SCRIPT = Path(store_workload.__file__)
BROKEN = (AssertionError, StoreRefusedError, DatabaseError, RockilnError, OSError, UnicodeError)


class Promises:
    """What the process was told and told on."""

    def __init__(self) -> None:
        self.accepted: set[str] = set()
        self.published: dict[str, str] = {}
        self.deleted: set[str] = set()
        self.doubtful: set[str] = set()  # a deletion that was asked for and not confirmed

    def hear(self, line: str) -> None:
        match line.split():
            case ["accepted", job_id, _]:
                self.accepted.add(job_id)
            case ["published", job_id, digest]:
                self.published[job_id] = digest
            case ["deleting", job_id]:
                self.doubtful.add(job_id)
            case ["deleted", job_id]:
                self.deleted.add(job_id)

    def check(self, root: Path) -> None:
        """Opens the store as a start after the cut does. Raises whatever is broken."""
        store = Store(Settings(public_dir=root, data_dir=root))
        try:
            store.prepare()
            for job_id in self.accepted - self.doubtful:
                job = store.jobs.get(job_id)  # never lost
                if job_id in self.published:
                    assert job.pictures[0].digest == self.published[job_id]
            for job_id in self.deleted:
                with pytest.raises(UnknownJobError):
                    store.jobs.get(job_id)  # never comes back
            self._check_files(store)
            self._goes_on(store)
        finally:
            store.close()

    @staticmethod
    def _check_files(store: Store) -> None:
        for job in store.jobs.page(limit=1000):
            for picture in job.pictures:
                if picture.digest:
                    data = store.artefacts.picture_path(picture.digest, "png").read_bytes()
                    assert hashlib.sha256(data).hexdigest() == picture.digest  # never torn
                if picture.latents:
                    data = store.artefacts.latents_path(picture.latents).read_bytes()
                    assert data.startswith(b"picture")
                    assert data.endswith(b" ")

    @staticmethod
    def _goes_on(store: Store) -> None:
        fault = Fault(FaultCode.LEASE_EXPIRED, "the power was cut")
        store.jobs.end_stale_attempts(fault, max_attempts=3, worker="w")
        leased = store.jobs.lease_next(worker="w", seconds=60)
        if leased is None:
            assert not store.jobs.page(limit=1, states=sorted(WAITING_STATES))
        else:
            assert work(store, *leased).ended


def cut_at(calls: list[Call], places: list[int], root: Path, tmp_path: Path) -> list[str]:
    """Cuts the power after each of these calls; returns what was broken."""
    disk, promises, broken = Disk(str(root)), Promises(), []
    wanted = set(places)
    for number, call in enumerate(calls):
        if call.what == "ack":
            promises.hear(call.data.decode())
            continue
        disk.do(call)
        if number not in wanted:
            continue
        for seed, kept in ((None, 0.0), (number, 0.5)):
            target = tmp_path / "after"
            disk.cut(target, chance(seed), kept)
            try:
                promises.check(target)
            except BROKEN as error:
                broken.append(f"after call {number} ({call.what} {call.path}): {error!r}")
            shutil.rmtree(target)
    return broken


def chance(seed: int | None) -> random.Random | None:
    """None: nothing that was not synced is there."""
    return None if seed is None else random.Random(seed)  # noqa: S311 (no secret)


def spread(calls: list[Call], count: int) -> list[int]:
    """``count`` calls that changed the disk, evenly over the run."""
    changes = [number for number, call in enumerate(calls) if call.what != "ack"]
    return [changes[len(changes) * n // count] for n in range(min(count, len(changes)))]


def test_every_promise_outlives_a_power_cut(
    tmp_path: Path, sizes: Callable[[int, int], int], figures: Callable[..., None]
) -> None:
    """Each cut is tried twice: nothing unsynced is there; half of it is, in torn pieces."""
    root = tmp_path / "data"
    root.mkdir()
    calls = record(SCRIPT, root, tmp_path / "acks", str(sizes(12, 30)), "none")
    places = spread(calls, sizes(100, 1000))
    broken = cut_at(calls, places, root, tmp_path)
    figures(calls=len(calls), boundaries=len(places), disks=2 * len(places), broken=len(broken))
    assert broken == []


@pytest.mark.parametrize("defect", ["files_not_synced", "database_not_synced"])
def test_the_check_finds_a_store_that_does_not_sync(tmp_path: Path, defect: str) -> None:
    root = tmp_path / "data"
    root.mkdir()
    calls = record(SCRIPT, root, tmp_path / "acks", "6", defect)
    assert cut_at(calls, spread(calls, 25), root, tmp_path)
