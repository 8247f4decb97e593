"""A backup under load, put back elsewhere: every job of before is there with its bytes."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from rockiln.settings import Settings
from rockiln.store.backup import DATABASE, MANIFEST, back_up
from rockiln.store.records import Job
from rockiln.store.restore import restore
from rockiln.store.schema import StoreRefusedError
from rockiln.store.store import Store
from support.parameters import parameters
from support.store_life import LIMITS, make_job, published


def _elsewhere(tmp_path: Path, request: pytest.FixtureRequest, kind: str) -> Settings:
    url = request.getfixturevalue("postgres").new_database() if kind == "postgresql" else None
    return Settings(public_dir=tmp_path, data_dir=tmp_path / "elsewhere", database_url=url)


@pytest.mark.parametrize("into", ["sqlite", "postgresql"])
def test_every_job_of_before_comes_back_with_its_bytes(
    store: Store, tmp_path: Path, request: pytest.FixtureRequest, into: str
) -> None:
    before = [make_job(store, seed=seed) for seed in range(8)]
    store.jobs.submit(parameters(), limits=LIMITS)
    leased = store.jobs.lease_next(worker="cpu0", seconds=600)
    assert leased is not None
    store.jobs.record_latents(
        leased[0], 0, store.artefacts.put_latents(leased[1].id, 0, b"latents")
    )
    waiting = store.jobs.submit(parameters(), limits=LIMITS, owner="anna")
    stop = threading.Event()

    def load() -> None:
        seed = 1000
        while not stop.is_set():
            make_job(store, seed=seed)
            seed += 1

    thread = threading.Thread(target=load)
    thread.start()
    try:
        report = back_up(store, tmp_path / "backup")
    finally:
        stop.set()
        thread.join()
    assert report.damaged == []
    target = _elsewhere(tmp_path, request, into)
    restore(target, tmp_path / "backup")
    back = Store(target)
    back.prepare()
    for job in before:
        assert back.jobs.get(job.id) == store.jobs.get(job.id)
        assert published(back, job) == published(store, job)
    assert back.jobs.get(waiting.id).owner == "anna"  # the load may have made it meanwhile
    resumed = back.jobs.get(leased[1].id)
    assert (resumed.state, resumed.pictures[0].state) == ("accepted", "latents_stored")
    assert back.artefacts.latents_path(f"{resumed.id}/0.safetensors").read_bytes() == b"latents"
    assert make_job(back, seed=77).seq > max(job.seq for job in before)
    assert back.events.after(before[0].id, 0, 100) == store.events.after(before[0].id, 0, 100)
    back.close()


def _a_backup(store: Store, tmp_path: Path) -> tuple[Job, Path]:
    job = make_job(store, seed=1)
    back_up(store, tmp_path / "backup")
    return job, tmp_path / "backup"


@pytest.mark.parametrize("how", ["torn", "missing", "no manifest", "database"])
def test_a_damaged_backup_is_refused_before_anything_is_touched(
    sqlite_store: Store, tmp_path: Path, how: str
) -> None:
    _, backup = _a_backup(sqlite_store, tmp_path)
    (picture,) = (backup / "pictures").glob("*/*.png")
    match how:
        case "torn":
            picture.unlink()
            picture.write_bytes(b"half a pict")
        case "missing":
            picture.unlink()
        case "no manifest":
            (backup / MANIFEST).unlink()
        case "database":
            (backup / DATABASE).write_bytes(b"SQLite format 3\0" + b"\0" * 5000)
    target = Settings(public_dir=tmp_path, data_dir=tmp_path / "elsewhere")
    with pytest.raises(StoreRefusedError):
        restore(target, backup)
    assert not target.artefacts_dir.exists()


def test_a_running_service_and_a_full_target_are_refused(
    sqlite_store: Store, settings: Settings, tmp_path: Path
) -> None:
    job, backup = _a_backup(sqlite_store, tmp_path)
    target = Settings(public_dir=tmp_path, data_dir=tmp_path / "elsewhere")
    running = Store(target)
    running.prepare()
    kept = make_job(running, seed=5)
    with pytest.raises(StoreRefusedError, match="in use"):
        restore(target, backup, replace=True)
    running.close()
    with pytest.raises(StoreRefusedError, match="--replace"):
        restore(target, backup)
    restore(target, backup, replace=True)
    back = Store(target)
    back.prepare()
    assert back.jobs.get(job.id).state == "done"
    assert [found.id for found in back.jobs.page(limit=9)] == [job.id]
    back.close()
    assert list((tmp_path / "elsewhere").glob(f"replaced-*/artefacts/pictures/*/{_name(kept)}"))


def _name(job: Job) -> str:
    return f"{job.pictures[0].digest}.png"


def test_a_backup_leaves_out_what_was_deleted(store: Store, tmp_path: Path) -> None:
    kept, gone = make_job(store, seed=1), make_job(store, seed=2)
    store.deletion.mark(gone.id)
    back_up(store, tmp_path / "backup")
    manifest = json.loads((tmp_path / "backup" / MANIFEST).read_text())
    assert manifest["jobs"] == 1
    assert not any(_name(gone) in name for name in manifest["files"])
    assert any(_name(kept) in name for name in manifest["files"])


def test_a_picture_that_is_not_what_was_published_is_named(store: Store, tmp_path: Path) -> None:
    job = make_job(store, seed=1)
    digest = job.pictures[0].digest
    assert digest is not None
    store.artefacts.picture_path(digest, "png").write_bytes(b"bit rot")
    report = back_up(store, tmp_path / "backup")
    assert [job.id in line for line in report.damaged] == [True]


def test_a_folder_with_something_in_it_takes_no_backup(store: Store, tmp_path: Path) -> None:
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup" / "x").touch()
    with pytest.raises(StoreRefusedError, match="not empty"):
        back_up(store, tmp_path / "backup")
