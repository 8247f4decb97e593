"""The engine child's environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rockiln.cli.cache import current_key
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


def test_kernel_caches_lie_on_the_volume_below_their_key(tmp_path: Path) -> None:
    prepare_environment("rocm", tmp_path)
    key = current_key(tmp_path)
    folder = tmp_path / "kernels" / key.folder
    for name in (
        "MIOPEN_USER_DB_PATH",
        "MIOPEN_CUSTOM_CACHE_DIR",
        "TRITON_CACHE_DIR",
        "TORCHINDUCTOR_CACHE_DIR",
    ):
        assert Path(os.environ[name]).is_relative_to(folder)
    assert key.torch
    assert sorted(path.name for path in folder.iterdir()) == ["key.json"]
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_a_cpu_compiles_no_kernels(tmp_path: Path) -> None:
    prepare_environment("cpu", tmp_path)
    assert not (tmp_path / "kernels").exists()


def test_the_releases_variables_are_set_and_unknown_ones_refused(tmp_path: Path) -> None:
    prepare_environment("rocm", tmp_path, {"HSA_OVERRIDE_GFX_VERSION": "10.3.0"})
    assert os.environ["HSA_OVERRIDE_GFX_VERSION"] == "10.3.0"
    assert current_key(tmp_path).gfx == "gfx1030"
    with pytest.raises(ValueError, match="MIOPEN_FIND_TIME_LIMIT"):
        prepare_environment("rocm", tmp_path, {"MIOPEN_FIND_TIME_LIMIT": "1"})
