"""``rockiln backup`` and ``rockiln restore`` as commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from rockiln.cli.main import app
from rockiln.settings import Settings
from rockiln.store.store import Store
from support.store_life import make_job


def test_a_backup_is_made_and_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCKILN_PUBLIC_DIR", str(tmp_path))
    monkeypatch.setenv("ROCKILN_DATA_DIR", str(tmp_path / "data"))
    store = Store(Settings())
    store.prepare()
    job = make_job(store, seed=1)
    run = CliRunner()
    made = run.invoke(app, ["backup", str(tmp_path / "backup")])
    assert (made.exit_code, "1 jobs" in made.output) == (0, True)
    again = run.invoke(app, ["backup", str(tmp_path / "backup")])
    assert again.exit_code == 1
    in_use = run.invoke(app, ["restore", str(tmp_path / "backup"), "--replace"])
    assert in_use.exit_code == 1
    store.close()
    monkeypatch.setenv("ROCKILN_DATA_DIR", str(tmp_path / "elsewhere"))
    back = run.invoke(app, ["restore", str(tmp_path / "backup")])
    assert back.exit_code == 0, back.output
    restored = Store(Settings())
    restored.prepare()
    assert restored.jobs.get(job.id).state == "done"
    restored.close()
