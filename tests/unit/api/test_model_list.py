"""Models that appear and go while the api runs."""

from __future__ import annotations

import shutil
from pathlib import Path

from rockiln.api.model_list import ModelList
from support.paper_model import write_paper_model


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_models_that_come_and_go_are_seen_without_a_restart(tmp_path: Path) -> None:
    clock = Clock()
    models = ModelList([tmp_path], monotonic=clock)
    assert not models.current().models
    write_paper_model(tmp_path / "paper")
    assert not models.current().models  # it does not look at every request
    clock.now = 10
    assert list(models.current().models) == ["paper"]
    write_paper_model(tmp_path / ".downloads" / "later")
    clock.now = 20
    assert list(models.current().models) == ["paper"]
    (tmp_path / ".downloads" / "later").rename(tmp_path / "later")
    clock.now = 30
    assert sorted(models.current().models) == ["later", "paper"]
    shutil.rmtree(tmp_path / "paper")
    clock.now = 40
    assert list(models.current().models) == ["later"]
    (tmp_path / "later" / "unet" / "config.json").write_text("[]")
    clock.now = 50
    assert list(models.current().broken) == ["later"]


def test_models_in_one_file_come_and_go_too(tmp_path: Path) -> None:
    clock = Clock()
    models = ModelList([tmp_path], monotonic=clock)
    path = tmp_path / "old.safetensors"
    path.write_bytes(b"")
    assert "truncated" in models.current(at_once=True).broken["old"]
    path.write_bytes((2).to_bytes(8, "little") + b"{}")
    assert "no checkpoint" in models.current(at_once=True).broken["old"]
    path.unlink()
    path.symlink_to("nowhere")
    assert "not a plain file" in models.current(at_once=True).broken["old"]
    path.unlink()
    assert models.current(at_once=True).broken == {}


def test_nothing_is_read_again_while_nothing_changes(tmp_path: Path) -> None:
    clock = Clock()
    write_paper_model(tmp_path / "paper")
    models = ModelList([tmp_path], monotonic=clock)
    first = models.current()
    clock.now = 100
    assert models.current() is first
