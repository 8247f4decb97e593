"""Which models stay in memory, and when one is loaded anew."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rockiln.domain.fault import FaultCode
from rockiln.domain.model import ModelProfile
from rockiln.worker import protocol
from support.engine_harness import EngineHarness, read_profile
from support.parameters import parameters
from support.tiny_sd1 import make_tiny_sd1

pytestmark = pytest.mark.slow


def revision_of(picture: protocol.PictureEncoded) -> object:
    details: Any = picture.details
    return details["model"]["revision"]


def test_shelf_keeps_the_models_last_used(tmp_path: Path) -> None:
    harness = EngineHarness(tmp_path / "work", kept_models=2)
    profiles = {
        name: read_profile(make_tiny_sd1(tmp_path / "models" / name, seed=seed))
        for seed, name in enumerate(("one", "two", "three"))
    }

    def take(name: str) -> object:
        profile = profiles[name]
        return harness.shelf.take(profile, harness.plan(parameters(), profile))

    one, two = take("one"), take("two")
    assert take("one") is one
    take("three")
    assert take("one") is one
    assert take("two") is not two


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
