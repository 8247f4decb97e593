"""Deletion, retention, identity, clocks, turns: what keeps a store fit for years."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rockiln.domain.errors import UnknownJobError
from rockiln.domain.fault import Fault, FaultCode
from rockiln.domain.request import ControlNetUse
from rockiln.settings import Settings
from rockiln.store.artefacts import ArtefactStore
from rockiln.store.boot_clock import Tick
from rockiln.store.deletion import Deletion
from rockiln.store.jobs import JobStore
from rockiln.store.schema import IDENTITY_FILE, StoreRefusedError
from rockiln.store.store import Store
from rockiln.store.upkeep import Retention, Upkeep
from support.parameters import parameters
from support.store_life import LIMITS, make_job

DAY = 86_400.0
EXPIRED = Fault(FaultCode.LEASE_EXPIRED, "x")


def upkeep(store: Store, retention: Retention, after_seconds: float = 0.0) -> Upkeep:
    def clock() -> float:
        import time  # noqa: PLC0415

        return time.time() + after_seconds

    deletion = Deletion(store.database, store.artefacts, clock=clock)
    return Upkeep(store.database, store.artefacts, deletion, retention, clock=clock)


def files(store: Store) -> list[Path]:
    return [path for path in store.artefacts.root.glob("pictures/*/*") if path.is_file()]


def test_a_deleted_job_is_gone_at_once_and_its_files_soon(store: Store) -> None:
    job = make_job(store, seed=1)
    store.deletion.mark(job.id)
    with pytest.raises(UnknownJobError):
        store.jobs.get(job.id)
    assert store.jobs.page(limit=9) == []
    assert store.deletion.finish() == 0  # fresh: somebody may be publishing the same bytes
    assert store.deletion.finish(fresh_seconds=0) == 1
    assert files(store) == []
    assert store.events.after(job.id, 0, 9) == []


def test_a_crash_between_files_and_rows_is_gone_on_from(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(store, seed=1)
    store.deletion.mark(job.id)

    def crash(_self: ArtefactStore, _job_id: str) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(ArtefactStore, "drop_latents", crash)
        with pytest.raises(RuntimeError):
            store.deletion.finish(fresh_seconds=0)
    with pytest.raises(UnknownJobError):
        store.jobs.get(job.id)
    assert store.deletion.finish(fresh_seconds=0) == 1


def test_a_picture_that_another_job_has_stays(store: Store) -> None:
    first, second = make_job(store, seed=1), make_job(store, seed=1)
    store.deletion.mark(first.id)
    assert store.deletion.finish(fresh_seconds=0) == 1
    assert len(files(store)) == 1
    store.deletion.mark(second.id)
    assert store.deletion.finish(fresh_seconds=0) == 1
    assert files(store) == []


def test_a_running_job_that_is_deleted_is_cancelled_and_goes_when_it_has_ended(
    store: Store,
) -> None:
    job = store.jobs.submit(parameters(), limits=LIMITS)
    leased = store.jobs.lease_next(worker="w", seconds=15)
    assert leased is not None
    store.deletion.mark(job.id)
    assert store.deletion.finish(fresh_seconds=0) == 0
    assert store.jobs.renew(leased[0], seconds=15) is True
    store.jobs.record_cancelled(leased[0])
    assert store.deletion.finish(fresh_seconds=0) == 1


def test_a_key_is_free_again_after_a_deletion(store: Store) -> None:
    def send() -> str:
        return store.jobs.submit(parameters(), limits=LIMITS, idempotency_key="k").id

    first = send()
    store.deletion.mark(first)
    assert send() != first


def test_retention_by_age_and_by_bytes(store: Store) -> None:
    jobs = [make_job(store, seed=seed) for seed in range(4)]
    size = jobs[0].pictures[0].size_bytes
    assert size is not None
    assert upkeep(store, Retention(picture_bytes=2 * size + 10), 700).run().jobs_expired == 2
    assert [job.id for job in store.jobs.page(limit=9)] == [jobs[3].id, jobs[2].id]
    assert upkeep(store, Retention(jobs_days=2), DAY).run().jobs_expired == 0
    done = upkeep(store, Retention(jobs_days=2), 3 * DAY).run()
    assert done.jobs_expired == 2
    assert store.jobs.page(limit=9) == []
    assert files(store) == []


def test_the_pictures_of_a_kept_job_are_kept(store: Store) -> None:
    digests = [store.artefacts.put_input(data) for data in (b"image", b"mask", b"map", b"other")]
    image, mask, control, _ = digests
    use = ControlNetUse("edges", control, 1.0, 0.0, 1.0)
    for changes in ({"image": image, "mask": mask}, {"controlnets": (use,)}):
        store.jobs.submit(parameters(**changes), limits=LIMITS)
    assert upkeep(store, Retention(), 2 * DAY).run().inputs_dropped == 1
    there = [digest for digest in digests if store.artefacts.input_path(digest).is_file()]
    assert there == [image, mask, control]


def test_what_nobody_needs_is_dropped(store: Store) -> None:
    job = make_job(store, seed=1)
    waiting = store.jobs.submit(parameters(), limits=LIMITS)
    for name in (job.id, waiting.id, "0" * 32):
        store.artefacts.put_latents(name, 0, b"x")
        store.artefacts.put_preview(name, 0, b"x")
    done = upkeep(store, Retention(events_days=1), 2 * DAY).run()
    assert done.latents_dropped == 2
    assert store.artefacts.latents_jobs() == [waiting.id]
    assert not store.artefacts.preview_path(job.id, 0).exists()
    assert done.events_dropped > 0
    assert [event.job_id for event in store.events.after(None, 0, 99)] == [waiting.id]


def test_another_stores_artefacts_are_refused(store: Store, settings: Settings) -> None:
    file = settings.artefacts_dir / IDENTITY_FILE
    own = file.read_text()
    file.write_text("f" * 32)
    with pytest.raises(StoreRefusedError, match="belongs to store"):
        store.prepare()
    file.unlink()
    with pytest.raises(StoreRefusedError, match="mounted"):
        store.prepare()
    file.write_text(own)
    store.prepare()


def test_a_damaged_database_is_refused(sqlite_store: Store) -> None:
    for seed in range(30):
        make_job(sqlite_store, seed=seed)
    sqlite_store.upkeep.run()
    file = sqlite_store.database.file
    assert file is not None
    sqlite_store.close()
    with file.open("r+b") as opened:
        opened.seek(8 * 4096)
        opened.write(os.urandom(12 * 4096))
    with pytest.raises(Exception, match=r"damaged|malformed|not a database"):
        sqlite_store.prepare()


@dataclass
class Clocks:
    """A date that jumps, and a boot clock that does not."""

    date: float = 1_000_000.0
    boot: float = 500.0
    boot_id: str = "a boot"

    def passes(self, seconds: float) -> None:
        self.date += seconds
        self.boot += seconds

    def tick(self) -> Tick:
        return Tick(self.boot_id, self.boot)


@pytest.mark.parametrize("jump", [3600.0, -3600.0, DAY, -DAY])
def test_a_jump_of_the_date_ends_no_lease_early_and_keeps_none_for_ever(
    store: Store, jump: float
) -> None:
    """R14."""
    clocks = Clocks()
    jobs = JobStore(store.database, clock=lambda: clocks.date, tick=clocks.tick)
    jobs.submit(parameters(), limits=LIMITS)
    leased = jobs.lease_next(worker="w", seconds=15)
    assert leased is not None
    clocks.passes(10)
    clocks.date += jump
    assert jobs.end_stale_attempts(EXPIRED, max_attempts=3) == []
    jobs.renew(leased[0], seconds=15)
    clocks.passes(14)
    assert jobs.end_stale_attempts(EXPIRED, max_attempts=3) == []
    clocks.passes(2)
    assert len(jobs.end_stale_attempts(EXPIRED, max_attempts=3)) == 1
    died = Fault(FaultCode.ENGINE_ERROR, "x")
    again = jobs.lease_next(worker="w", seconds=15)
    assert again is not None
    jobs.end_attempt(again[0], died, max_attempts=3)
    clocks.date -= abs(jump)  # the pause before the retry lies a day ahead now
    clocks.passes(1)
    assert jobs.lease_next(worker="w", seconds=15) is not None


@pytest.mark.parametrize("jump", [DAY, -DAY])
def test_a_jobs_deadline_goes_by_the_time_that_the_host_was_up(store: Store, jump: float) -> None:
    clocks = Clocks()
    jobs = JobStore(store.database, clock=lambda: clocks.date, tick=clocks.tick)
    jobs.submit(parameters(), limits=LIMITS)

    def attempt() -> None:
        leased = jobs.lease_next(worker="w", seconds=15)
        assert leased is not None
        jobs.give_back(leased[0])

    attempt()
    clocks.date += jump
    clocks.passes(99)
    assert jobs.fail_overdue(100) == []
    clocks.boot_id = "the next boot"
    clocks.passes(1000)
    assert jobs.fail_overdue(100) == []
    attempt()
    clocks.passes(99)
    assert jobs.fail_overdue(100) == []
    clocks.passes(2)
    assert [job.failure_code for job in jobs.fail_overdue(100)] == ["job_deadline"]


def test_a_lease_of_another_boot_has_ended(store: Store) -> None:
    ticks = [Tick("before", 9e9)]
    jobs = JobStore(store.database, clock=lambda: 1.0, tick=lambda: ticks[-1])
    jobs.submit(parameters(), limits=LIMITS)
    assert jobs.lease_next(worker="w", seconds=15) is not None
    ticks.append(Tick("after", 1.0))
    assert len(jobs.end_stale_attempts(EXPIRED, max_attempts=3)) == 1


def test_an_owner_with_many_jobs_does_not_starve_another(store: Store) -> None:
    def send(owner: str) -> str:
        return store.jobs.submit(parameters(), limits=LIMITS, owner=owner).id

    many = [send("many") for _ in range(6)]
    few = [send("few") for _ in range(2)]
    order = []
    for _ in range(8):
        leased = store.jobs.lease_next(worker="w", seconds=60)
        assert leased is not None
        order.append(leased[1].owner)
        store.jobs.record_cancelled(leased[0])
    assert order[:4] in (["many", "few"] * 2, ["few", "many"] * 2)
    assert len(many + few) == len(order)


def test_several_workers_lease_each_job_once(store: Store) -> None:
    for seed in range(40):
        store.jobs.submit(parameters(seed=seed), limits=LIMITS)
    taken: list[Any] = []

    def take(worker: str) -> Callable[[], None]:
        def loop() -> None:
            while (leased := store.jobs.lease_next(worker=worker, seconds=600)) is not None:
                taken.append(leased[1].id)

        return loop

    threads = [threading.Thread(target=take(f"w{n}")) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    left = store.jobs.queue().waiting
    assert len(set(taken)) == len(taken) == 40 - left
    while store.jobs.lease_next(worker="w", seconds=600) is not None:
        left -= 1  # a worker that found all rows held by others came back empty
    assert left == 0


def test_whoever_reads_a_number_has_missed_nothing_below_it(store: Store) -> None:
    seen: list[int] = []
    stop = threading.Event()

    def tail() -> None:
        last = 0
        while not (stop.is_set() and not store.events.after(None, last, 1)):
            stop.wait(0.001)  # else it keeps Python's lock, and the writers wait for seconds
            for event in store.events.after(None, last, 50):
                seen.append(event.seq)
                last = event.seq

    def send(owner: str) -> None:
        for _ in range(25):
            job = store.jobs.submit(parameters(), limits=LIMITS, owner=owner)
            store.jobs.cancel(job.id)

    threads = [threading.Thread(target=send, args=[f"o{n}"]) for n in range(4)]
    tailer = threading.Thread(target=tail)
    for thread in (tailer, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    tailer.join()
    assert seen == [event.seq for event in store.events.after(None, 0, 1000)]
    assert len(seen) == 200


def test_an_address_with_a_password_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "database-url"
    file.write_text("postgresql://rockiln:hunter2@db/rockiln\n")
    settings = Settings(public_dir=tmp_path, data_dir=tmp_path, database_url_file=file)
    store = Store(settings)
    assert "hunter2" not in store.database.shown + repr(settings) + repr(store.database.engine)
    given = Settings(public_dir=tmp_path, data_dir=tmp_path, database_url=file.read_text().strip())
    assert "hunter2" not in repr(given) + str(given.model_dump())
    assert "hunter2" in given.as_environment()["ROCKILN_DATABASE_URL"]
    store.close()
