"""Models read from a cache of Hugging Face's own library."""

from __future__ import annotations

from pathlib import Path

import pytest

from rockiln.registry import load_catalogue
from rockiln.registry.known_models import known_models
from support.paper_model import write_paper_model

SD15 = known_models()["sd15"]
OTHER_COMMIT = "f" * 40


def cache_model(cache: Path, repository: str, commit: str) -> Path:
    """As the library lays it out: blobs by digest, links in a snapshot, the branch in refs."""
    root = cache / f"models--{repository.replace('/', '--')}"
    write_paper_model(root / "paper")
    (root / "paper" / "rockiln.json").unlink()
    (root / "blobs").mkdir()
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(commit)
    for number, path in enumerate(sorted((root / "paper").rglob("*"))):
        if path.is_dir():
            continue
        link = root / "snapshots" / commit / path.relative_to(root / "paper")
        link.parent.mkdir(parents=True, exist_ok=True)
        blob = path.rename(root / "blobs" / str(number))
        link.symlink_to(Path("../" * (len(link.relative_to(root).parts) - 1)) / "blobs" / blob.name)
    return root / "snapshots" / commit


def test_a_known_model_has_its_own_id_and_defaults(tmp_path: Path) -> None:
    snapshot = cache_model(tmp_path, SD15.repository or "", SD15.commit or "")
    (found,) = load_catalogue([], tmp_path).models.values()
    assert (found.id, found.title, found.licence) == ("sd15", SD15.title, SD15.licence)
    assert found.path == str(snapshot)
    assert found.root == str(snapshot.parent.parent)


@pytest.mark.parametrize("repository", ["Some/Model", SD15.repository or ""])
def test_another_commit_or_repository_is_another_model(tmp_path: Path, repository: str) -> None:
    cache_model(tmp_path, repository, OTHER_COMMIT)
    assert list(load_catalogue([], tmp_path).models) == [repository.lower().replace("/", "--")]


def test_the_sites_own_folder_wins(tmp_path: Path) -> None:
    cache_model(tmp_path / "cache", SD15.repository or "", SD15.commit or "")
    write_paper_model(tmp_path / "own" / "sd15")
    found = load_catalogue([tmp_path / "own"], tmp_path / "cache").models["sd15"]
    assert found.path == str(tmp_path / "own" / "sd15")


def test_a_link_out_of_the_repository_and_a_pickle_are_refused(tmp_path: Path) -> None:
    snapshot = cache_model(tmp_path, "a/b", OTHER_COMMIT)
    outside = tmp_path / "outside.json"
    outside.write_text("{}")
    (snapshot / "unet" / "config.json").unlink()
    (snapshot / "unet" / "config.json").symlink_to(outside)
    assert "leads out" in load_catalogue([], tmp_path).broken["a--b"]
    (snapshot / "unet" / "config.json").unlink()
    (snapshot / "unet" / "config.json").write_text("{}")
    assert "a--b" in load_catalogue([], tmp_path).models
    (snapshot / "unet" / "weights.bin").write_bytes(b"PK\x03\x04")
    assert "run code" in load_catalogue([], tmp_path).broken["a--b"]


def test_half_a_download_and_what_is_no_picture_model(tmp_path: Path) -> None:
    snapshot = cache_model(tmp_path, "a/half", OTHER_COMMIT)
    (snapshot / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    (tmp_path / "models--a--language" / "snapshots" / OTHER_COMMIT).mkdir(parents=True)
    (tmp_path / "datasets--a--b").mkdir()
    catalogue = load_catalogue([], tmp_path)
    assert not catalogue.models
    assert "is missing" in catalogue.broken["a--half"]
    assert list(catalogue.broken) == ["a--half"]
    assert not load_catalogue([], tmp_path / "none").models
