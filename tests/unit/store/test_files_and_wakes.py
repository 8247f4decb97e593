"""Artefact files, wake-ups, settings of the database."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from rockiln.settings import Settings
from rockiln.store.artefacts import ArtefactStore, write_durably
from rockiln.store.records import Worker, WorkerState
from rockiln.store.store import Store
from rockiln.store.tables import Base
from rockiln.store.wake import WakeReceiver, wake


def test_a_picture_is_found_by_its_digest(tmp_path: Path) -> None:
    artefacts = ArtefactStore(tmp_path)
    artefacts.prepare()
    digest = artefacts.put_picture(b"picture", "png")
    assert artefacts.put_picture(b"picture", "png") == digest
    assert artefacts.picture_path(digest, "png").read_bytes() == b"picture"


def test_no_picture_waits_for_its_folder(tmp_path: Path) -> None:
    artefacts = ArtefactStore(tmp_path)
    artefacts.put_picture(b"picture", "png")
    artefacts.make_picture_folders()
    for digest in (f"{0:064x}", f"{2**256 - 1:064x}"):
        assert artefacts.picture_path(digest, "png").parent.is_dir()
    assert len(list((tmp_path / "pictures").iterdir())) == 256


def test_an_interrupted_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def power_cut(_: int) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", power_cut)
    with pytest.raises(OSError, match="no space"):
        write_durably(tmp_path / "a", b"data")
    assert list(tmp_path.iterdir()) == []


def test_strays_of_a_dead_process_are_swept(tmp_path: Path) -> None:
    artefacts = ArtefactStore(tmp_path)
    artefacts.prepare()
    stray = tmp_path / "pictures" / ".tmp-dead"
    stray.write_bytes(b"half")
    os.utime(stray, (0, 0))
    artefacts.prepare()
    assert not stray.exists()


def test_a_file_that_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    artefacts = ArtefactStore(tmp_path)
    artefacts.prepare()
    half = tmp_path / "pictures" / ".tmp-alive"
    half.write_bytes(b"half")
    artefacts.prepare()
    assert half.exists()


def test_latents_are_dropped_with_their_job(tmp_path: Path) -> None:
    artefacts = ArtefactStore(tmp_path)
    artefacts.make_latents_folder("job")
    name = artefacts.put_latents("job", 0, b"latents")
    assert artefacts.latents_path(name).read_bytes() == b"latents"
    artefacts.drop_latents("job")
    artefacts.drop_latents("job")
    assert not artefacts.latents_path(name).exists()


def test_a_wake_reaches_its_audience_only_even_below_a_long_path(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    worker, api = WakeReceiver(folder, "worker"), WakeReceiver(folder, "api")
    wake(folder, "worker")
    assert select.select([worker.socket, api.socket], [], [], 0)[0] == [worker.socket]
    worker.drain()
    assert select.select([worker.socket], [], [], 0)[0] == []
    worker.close()
    api.close()


def test_a_sleeper_with_a_full_queue_does_not_block_the_sender(tmp_path: Path) -> None:
    receiver = WakeReceiver(tmp_path, "api")
    for _ in range(2000):
        wake(tmp_path, "api")
    receiver.close()


def test_sockets_of_the_dead_are_removed(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys; from rockiln.store.wake import WakeReceiver;"
        "WakeReceiver(pathlib.Path(sys.argv[1]), 'api')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment)
    assert list(tmp_path.glob("*.sock"))
    wake(tmp_path, "api")
    assert not list(tmp_path.glob("*.sock"))


def test_an_accepted_job_is_on_disk_before_it_is_told(sqlite_store: Store) -> None:
    with sqlite_store.database.read() as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
        assert session.scalar(text("PRAGMA synchronous")) == 2  # FULL
        assert session.scalar(text("PRAGMA foreign_keys")) == 1


def test_the_schema_of_the_migrations_is_that_of_the_tables(store: Store) -> None:
    with store.database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_a_workers_last_word_stands(store: Store) -> None:
    first = Worker("cpu0", WorkerState.STARTING, "", None, None, 1.0, None)
    last = Worker("cpu0", WorkerState.READY, "", {"kind": "cpu"}, {"torch": "2"}, 2.0, 1.5)
    store.workers.report(first)
    store.workers.report(last)
    assert store.workers.all() == [last]


def test_settings_come_from_environment_then_file_then_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings.toml").write_text('wait_seconds = 5\nlog_level = "debug"\n')
    monkeypatch.setenv("ROCKILN_PUBLIC_DIR", str(tmp_path))
    monkeypatch.setenv("ROCKILN_WAIT_SECONDS", "7")
    settings = Settings()
    assert (settings.wait_seconds, settings.log_level, settings.max_attempts) == (7, "debug", 3)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:0", "127.0.0.1:70000"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="published_address"):
        Settings(published_address=address)
