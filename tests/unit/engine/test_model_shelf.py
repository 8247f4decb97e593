"""Which models stay in memory, and when one is loaded anew."""

from __future__ import annotations

import shutil
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rockiln.domain.fault import FaultCode
from rockiln.domain.memory import HOST_SHARE
from rockiln.domain.model import ModelProfile
from rockiln.domain.plan import plan
from rockiln.domain.residency import held_by
from rockiln.engine.model_shelf import ShelvedModel
from rockiln.platforms.selection import select
from rockiln.worker import protocol
from rockiln.worker.protocol import ModelInMemory
from support.engine_harness import EngineHarness, read_profile
from support.parameters import parameters
from support.tiny_sd1 import make_tiny_sd1

pytestmark = pytest.mark.slow


def revision_of(picture: protocol.PictureEncoded) -> object:
    details: Any = picture.details
    return details["model"]["revision"]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[ModelProfile]:
    folder = tmp_path_factory.mktemp("three")
    return [
        read_profile(make_tiny_sd1(folder / name, seed=seed))
        for seed, name in enumerate(("one", "two", "three"))
    ]


def bytes_for(three: list[ModelProfile], kept: int) -> int:
    """Of a host that holds a job of a tiny model beside so many others, and not one more."""
    chosen = plan(parameters(), three[0], select("cpu", "auto", threads=1).facts)
    peak = chosen.predicted_bytes + (kept + 0.5) * held_by(three[0], chosen).device_bytes
    return int(peak / HOST_SHARE)


def in_memory(told: list[list[ModelInMemory]]) -> list[str]:
    return [model.id for model in told[-1]]


def test_a_switch_there_and_back_gives_the_same_bytes_and_loads_nothing(
    tmp_path: Path, three: list[ModelProfile]
) -> None:
    told: list[list[ModelInMemory]] = []
    harness = EngineHarness(tmp_path, on_change=told.append)
    one, two, _ = three
    pictures = [harness.run(parameters(), model)[0] for model in (one, two, one, two)]
    assert pictures[0].digest == pictures[2].digest
    assert pictures[1].digest == pictures[3].digest
    assert [len(models) for models in told] == [1, 2]


def test_what_does_not_fit_beside_the_job_leaves_longest_unused_first(
    tmp_path: Path, three: list[ModelProfile]
) -> None:
    told: list[list[ModelInMemory]] = []
    room = bytes_for(three, kept=1)
    harness = EngineHarness(tmp_path, total_bytes=room, on_change=told.append)
    one, two, other = three
    (before,) = harness.run(parameters(), one)
    held = weakref.ref(shelved_of(harness, one).model)
    harness.run(parameters(), two)
    assert in_memory(told) == ["one", "two"]
    harness.run(parameters(), other)
    assert in_memory(told) == ["two", "three"]
    assert held() is None, "its memory is free"
    (after,) = harness.run(parameters(), one)
    assert in_memory(told) == ["three", "one"]
    assert after.digest == before.digest


def test_a_pinned_model_stays_whatever_comes(tmp_path: Path, three: list[ModelProfile]) -> None:
    told: list[list[ModelInMemory]] = []
    room = bytes_for(three, kept=1)
    harness = EngineHarness(tmp_path, total_bytes=room, on_change=told.append, pinned=["one"])
    for model in (*three, *three[1:]):
        harness.run(parameters(), model)
        assert "one" in in_memory(told)
        assert len(told[-1]) <= 2
    assert in_memory(told) == ["one", "three"]


def test_a_model_that_nobody_used_leaves_and_is_loaded_again(
    tmp_path: Path, three: list[ModelProfile]
) -> None:
    told: list[list[ModelInMemory]] = []
    now = 0.0
    harness = EngineHarness(
        tmp_path,
        on_change=told.append,
        pinned=["two"],
        idle_seconds=10.0,
        monotonic=lambda: now,
    )
    one, two, _ = three
    assert harness.engine.use_pause() is None
    (before,) = harness.run(parameters(), one)
    now = 4.0
    harness.run(parameters(), two)
    now = 5.0
    assert harness.engine.use_pause() == 5.0
    now = 10.0
    assert harness.engine.use_pause() is None
    assert in_memory(told) == ["two"]
    (after,) = harness.run(parameters(), one)
    assert after.digest == before.digest


def test_a_job_in_hand_begins_the_idle_time_anew(tmp_path: Path, three: list[ModelProfile]) -> None:
    now = 0.0
    harness = EngineHarness(tmp_path, idle_seconds=10.0, monotonic=lambda: now)
    harness.submit(parameters(), three[0])
    now = 60.0
    harness.finish()
    now = 61.0
    assert harness.engine.use_pause() == 9.0


def shelved_of(harness: EngineHarness, model: ModelProfile) -> ShelvedModel:
    return harness.shelf.take(model, harness.plan(parameters(), model))


def test_files_replaced_on_disk_are_loaded_anew(tmp_path: Path) -> None:
    harness = EngineHarness(tmp_path / "work")
    folder = tmp_path / "models" / "tiny"
    (first,) = harness.run(parameters(), read_profile(make_tiny_sd1(folder)))
    shutil.rmtree(folder)
    (second,) = harness.run(parameters(), read_profile(make_tiny_sd1(folder, seed=1)))
    assert revision_of(first) != revision_of(second)
    assert first.digest != second.digest


def test_model_whose_folder_is_gone_is_broken(
    harness: EngineHarness, tiny: ModelProfile, tmp_path: Path
) -> None:
    gone = replace(tiny, path=str(tmp_path / "gone"))
    harness.run(parameters(), gone)
    failure = harness.failure()
    assert failure.code is FaultCode.BROKEN_MODEL
    assert "is gone" in failure.detail
