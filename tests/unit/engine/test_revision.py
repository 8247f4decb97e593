"""A model's revision follows the files that decide its pictures, and no others."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from rockiln.registry.revision import revision, signature


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "tiny"))


def test_revision_is_of_contents_and_names_alone(
    folder: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    """Another place and another time of writing change nothing."""
    assert revision(folder, tmp_path / "a") == revision(tiny_folder, tmp_path / "b")


@pytest.mark.parametrize("name", ["unet/config.json", "tokenizer/tokenizer.json", "vae/new.json"])
def test_deciding_file_changes_the_revision(folder: Path, tmp_path: Path, name: str) -> None:
    before = revision(folder, tmp_path / "cache")
    path = folder / name
    path.write_text((path.read_text() if path.exists() else "{}") + " ")
    assert revision(folder, tmp_path / "cache") != before


@pytest.mark.parametrize("name", ["README.md", "rockiln.json", "card.png"])
def test_card_and_manifest_change_nothing(folder: Path, tmp_path: Path, name: str) -> None:
    before = revision(folder, tmp_path / "cache")
    (folder / name).write_text("{}")
    assert revision(folder, tmp_path / "cache") == before


def test_files_go_by_the_parts_of_their_paths_and_links_to_folders_are_left_out(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "model"
    (folder / "a").mkdir(parents=True)
    names = ["a/b.json", "a.json"]  # not the order of the texts
    for name in names:
        (folder / name).write_text(name)
    (folder / "again").symlink_to(folder / "a")
    (folder / "a" / ".json").write_text("a name, and no suffix")
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
    lines = "".join(f"{name}\0{digest}\n" for name, digest in digests.items())
    assert revision(folder, tmp_path / "cache") == hashlib.sha256(lines.encode()).hexdigest()


def test_kept_digest_is_used_while_the_files_stand(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    before = revision(folder, cache)
    kept = cache / "revisions" / signature(folder)
    assert kept.read_text() == before
    kept.write_text("kept")
    assert revision(folder, cache) == "kept"


def test_cache_that_cannot_be_written_is_no_obstacle(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert len(revision(folder, tmp_path / "cache")) == 64
    assert "is not kept" in capsys.readouterr().err
