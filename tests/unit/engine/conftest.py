"""One tiny model and one engine for all tests of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from rockiln.domain.model import ModelProfile
from support.engine_harness import EngineHarness, read_profile


def pytest_configure(config: pytest.Config) -> None:
    """diffusers 0.42 hands torch tensors to numpy 2 in a way that numpy means to drop."""
    config.addinivalue_line(
        "filterwarnings",
        "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
    )


@pytest.fixture(scope="session")
def tiny_folder(models_dir: Path) -> Path:
    return models_dir / "tiny"


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> ModelProfile:
    return read_profile(tiny_folder)


@pytest.fixture(scope="session")
def shared_harness(tmp_path_factory: pytest.TempPathFactory) -> EngineHarness:
    return EngineHarness(tmp_path_factory.mktemp("engine"))


@pytest.fixture
def harness(shared_harness: EngineHarness) -> EngineHarness:
    """The shared engine with no events; a test that leaves jobs in it is at fault."""
    assert shared_harness.engine.idle
    shared_harness.events.clear()
    return shared_harness
