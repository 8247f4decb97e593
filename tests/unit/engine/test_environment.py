"""The engine child's environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rockiln.engine.environment import prepare_environment


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))


def test_threads_do_not_spin_long_unless_the_operator_says_so(tmp_path: Path) -> None:
    os.environ.pop("GOMP_SPINCOUNT", None)
    prepare_environment("cpu", tmp_path)
    assert os.environ["GOMP_SPINCOUNT"] == "10000"
    os.environ["GOMP_SPINCOUNT"] = "7"
    prepare_environment("cpu", tmp_path)
    assert os.environ["GOMP_SPINCOUNT"] == "7"


def test_kernel_caches_lie_on_the_volume(tmp_path: Path) -> None:
    prepare_environment("rocm", tmp_path)
    assert os.environ["MIOPEN_USER_DB_PATH"].startswith(str(tmp_path))
    assert os.environ["HF_HUB_OFFLINE"] == "1"
