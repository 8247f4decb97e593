"""One download: what passes the gate is published, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rockiln.domain.errors import BrokenModelError
from rockiln.fetcher.download import Download, NoSpaceError, Place
from rockiln.fetcher.hub import Hub
from rockiln.registry import Catalogue, load_catalogue
from rockiln.registry.known_models import known_models
from rockiln.store.model_tasks import ModelLock
from support.hub import FakeHub
from support.sd15_repository import REPOSITORY, SD15, UNET
from support.single_file import write_checkpoint
from support.tiny_sdxl import make_tiny_sdxl

pytestmark = pytest.mark.slow


def spoil(name: str, content: bytes) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda held: held | {name: content}


def download(hub: FakeHub, models: Path, **changes: Any) -> ModelLock:
    return Download(
        hub=Hub(hub.url, None, stall_seconds=5),
        place=Place(models),
        pin=lambda lock: lock,
        progress=lambda _done, _total: None,
        **{
            "model": SD15,
            "pinned_commit": SD15.commit,
            "keep_free_bytes": 0,
            "backoff_seconds": 0,
            **changes,
        },
    ).run()


def test_a_checkpoint_in_one_file_is_published_with_what_is_known_of_it(tmp_path: Path) -> None:
    """The row of SDXL Lightning, with a tiny file in the place of the real one."""
    lender, models = tmp_path / "lenders" / "tiny", tmp_path / "models"
    make_tiny_sdxl(lender)
    whole = write_checkpoint(lender, tmp_path / "whole.safetensors").read_bytes()
    known = known_models()["sdxl-lightning-4step"]
    name, repository = known.single_file or "", known.repository or ""
    held = {name: whole, "sdxl_lightning_4step_lora.safetensors": b"x"}
    with FakeHub({repository: held}, commit=known.commit or "") as hub:
        pull = partial(download, hub, models, pinned_commit=known.commit)
        with pytest.raises(BrokenModelError, match="pinned is"):
            pull(model=known, model_dirs=[lender.parent])
        known = known.model_copy(update={"files": ()})
        with pytest.raises(BrokenModelError, match="fits the configs of no sdxl model"):
            pull(model=known)
        assert load_catalogue([models]) == Catalogue()
        lock = pull(model=known, model_dirs=[lender.parent])
    assert set(lock.files) == {name}
    profile = load_catalogue([lender.parent, models]).models[known.id]
    assert (profile.title, profile.licence) == (known.title, known.licence)
    assert profile.defaults.num_inference_steps == 4
    assert profile.scheduler_config == {"timestep_spacing": "trailing"}
    assert list((models / ".downloads").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda held: {n: v for n, v in held.items() if n != UNET}, "lacks unet"),
        (spoil("unet/config.json", b'{"auto_map": {"x": "y"}}'), "auto_map"),
        (spoil(UNET, b"\x80\x02not safetensors"), "header over"),
        (spoil("model_index.json", b"{}"), "pipeline"),
        (spoil("tokenizer/vocab.json", b"PK\x03\x04"), "archive"),
        (lambda _: {}, "lacks model_index.json"),
    ],
)
def test_what_the_gate_refuses_is_never_served(
    repository: dict[str, bytes],
    tmp_path: Path,
    change: Callable[[dict[str, bytes]], dict[str, bytes]],
    words: str,
) -> None:
    with (
        FakeHub({REPOSITORY: change(repository)}, commit=SD15.commit or "") as hub,
        pytest.raises(BrokenModelError, match=words),
    ):
        download(hub, tmp_path)
    assert load_catalogue([tmp_path]) == Catalogue()


def test_a_full_disk_is_seen_before_the_first_byte(
    repository: dict[str, bytes], tmp_path: Path
) -> None:
    with FakeHub({REPOSITORY: repository}, commit=SD15.commit or "") as hub:
        with pytest.raises(NoSpaceError, match="make room"):
            download(hub, tmp_path, keep_free_bytes=1 << 60)
        assert hub.ranges(UNET) == []


def test_a_cache_of_the_hubs_own_library_is_used(
    repository: dict[str, bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "hub" / f"models--{REPOSITORY.replace('/', '--')}"
    snapshot = folder / "snapshots" / (SD15.commit or "") / UNET
    snapshot.parent.mkdir(parents=True)
    (folder / "blobs").mkdir()
    (folder / "blobs" / "unet").write_bytes(repository[UNET])
    snapshot.symlink_to(folder / "blobs" / "unet")
    with FakeHub({REPOSITORY: repository}, commit=SD15.commit or "") as hub:
        download(hub, tmp_path / "models", hub_cache=tmp_path / "hub")
        assert hub.ranges(UNET) == []
        snapshot.unlink()
        (tmp_path / "elsewhere").write_bytes(repository[UNET])
        snapshot.symlink_to(tmp_path / "elsewhere")  # a link that leads out is not followed
        download(hub, tmp_path / "others", hub_cache=tmp_path / "hub")
        assert hub.ranges(UNET) == [""]
