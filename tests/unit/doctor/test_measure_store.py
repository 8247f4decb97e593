"""What the doctor reads of a store that the service itself made."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from rockiln.doctor.measure_service import measure_store
from rockiln.settings import Settings
from rockiln.store.store import Store


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(public_dir=tmp_path, data_dir=tmp_path / "data")
    store = Store(made)
    store.prepare()
    store.refusals.refuse("kind", until=time.time() + 60, job_id="j", code="hang", detail="again")
    store.close()
    return made


def test_store_of_this_version_is_read_whole(settings: Settings) -> None:
    """Columns and states are the store's own: a healthy host was once told that it is damaged."""
    with sqlite3.connect(settings.store_dir / "rockiln.db") as database:
        database.execute(
            "INSERT INTO job (id, state, parameters, accepted_at, not_before, request_digest,"
            " attempt, counted_attempts, killed_attempts, cancel_requested, owner, purpose,"
            " estimated_seconds) VALUES ('j', 'accepted', '{}', 0, 0, '', 0, 0, 0, 0, '', '', 0)"
        )
    found = measure_store(settings)
    assert (found["store"], found["waiting_jobs"], found["refusals"]) == ("ok", 1, 1)
    assert found["workers"] == []
    assert found["last_fault"] is None


def test_store_of_another_version_is_not_called_damaged(settings: Settings) -> None:
    with sqlite3.connect(settings.store_dir / "rockiln.db") as database:
        database.execute("ALTER TABLE refusal RENAME COLUMN refused_until TO until")
    found = measure_store(settings)
    assert found["store"] == "unreadable"
    assert "refused_until" in found["store_path"]


def test_damaged_store_is(settings: Settings) -> None:
    (settings.store_dir / "rockiln.db").write_bytes(b"no database" * 1000)
    assert "not a database" in measure_store(settings)["store"]
