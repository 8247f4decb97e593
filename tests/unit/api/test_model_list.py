"""Models that appear while the api runs."""

from __future__ import annotations

from pathlib import Path

from rockiln.api.model_list import ModelList
from support.paper_model import write_paper_model


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_first_model_of_a_host_is_found_without_a_restart(tmp_path: Path) -> None:
    clock = Clock()
    models = ModelList([tmp_path], monotonic=clock)
    assert not models.current().models
    write_paper_model(tmp_path / "paper")
    assert not models.current().models  # it does not look at every request
    clock.now = 10
    assert list(models.current().models) == ["paper"]


def test_a_model_that_the_worker_has_not_read_is_not_offered(tmp_path: Path) -> None:
    clock = Clock()
    write_paper_model(tmp_path / "paper")
    models = ModelList([tmp_path], monotonic=clock)
    write_paper_model(tmp_path / "later")
    clock.now = 10
    assert list(models.current().models) == ["paper"]
