"""A worker that does not fit its host refuses, and says which layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rockiln.api.readiness import worker_fault
from rockiln.settings import Settings
from rockiln.store.store import Store
from rockiln.worker.gate import EXIT_MISALIGNED, alignment
from rockiln.worker.supervisor import run


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", public_dir=tmp_path)


def write_host(folder: Path, **changes: Any) -> None:
    row = {
        "backend": "cpu",
        "python": None,
        "torch": {"version": "0.0.1+cpu", "local": "cpu"},
        "gfx": [],
        **changes,
    }
    host = {"release": "cpu", "row": row}
    (folder / "host.json").write_text(json.dumps(host), encoding="utf-8")


def test_nothing_is_refused_where_nothing_was_provisioned(settings: Settings) -> None:
    assert alignment(settings) == []


def test_a_worker_with_another_torch_refuses_to_start(settings: Settings) -> None:
    write_host(settings.public_dir)
    assert run(settings) == EXIT_MISALIGNED
    store = Store(settings)
    try:
        (worker,) = store.workers.all()
    finally:
        store.close()
    assert worker.state == "failed"
    long_after = worker.heartbeat_at + 3600
    fault = worker_fault(worker, now=long_after, stale_after_seconds=5)
    assert fault is not None
    assert fault.startswith("misaligned: torch: expected 0.0.1+cpu, found ")


def test_settings_that_do_not_exist_are_named(settings: Settings) -> None:
    write_host(settings.public_dir)
    chosen = settings.model_copy(update={"engine_environment": {"MIOPEN_FIND_TIME_LIMIT": "5"}})
    layers = {each["layer"]: each for each in alignment(chosen)}
    assert layers["environment"]["verdict"] == "mismatch"
    assert "MIOPEN_FIND_MODE" in layers["environment"]["fix"]
