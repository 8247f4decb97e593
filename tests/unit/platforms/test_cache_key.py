"""The key of the kernel cache, from recorded files of a host."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rockiln.platforms.cache_key import read_cache_key

TORCH = "__version__ = '2.9.1+rocm7.2.4'\nhip: str | None = '7.2.53150'\ncuda = None\n"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Node 0 is a CPU, node 1 an RX 6700 XT, node 2 an RX 7900 XTX."""
    for node, number in ((0, 0), (1, 100301), (2, 110000)):
        folder = tmp_path / "nodes" / str(node)
        folder.mkdir(parents=True)
        (folder / "properties").write_text(f"cpu_cores_count 8\ngfx_target_version {number}\n")
    (tmp_path / "version").write_text("7.2.4-93\n")
    (tmp_path / "torch.py").write_text(TORCH)
    (tmp_path / "host.json").write_text(json.dumps({"images": {"worker": {"digest": "sha256:aa"}}}))
    return tmp_path


def test_the_key_names_card_rocm_torch_and_image(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HSA_OVERRIDE_GFX_VERSION", raising=False)
    found = read_cache_key(
        host / "host.json",
        topology=host / "nodes",
        rocm_version=host / "version",
        torch_version=host / "torch.py",
    )
    assert (found.gfx, found.rocm, found.torch, found.image) == (
        "gfx1031", "7.2.4-93", "2.9.1+rocm7.2.4", "sha256:aa",
    )  # fmt: skip


def test_an_override_decides_what_kernels_are_compiled_for(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HSA_OVERRIDE_GFX_VERSION", "10.3.0")
    found = read_cache_key(None, topology=host / "nodes", torch_version=host / "torch.py")
    assert found.gfx == "gfx1030"


def test_what_cannot_be_read_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HSA_OVERRIDE_GFX_VERSION", raising=False)
    (tmp_path / "torch.py").write_text("__version__ = '2.9.1'\ncuda = None\nhip = None\n")
    found = read_cache_key(
        tmp_path / "host.json",
        topology=tmp_path / "nodes",
        rocm_version=tmp_path / "version",
        torch_version=tmp_path / "torch.py",
    )
    assert (found.gfx, found.rocm, found.image) == ("", "", "")
