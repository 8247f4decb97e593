"""Real services: one that many tests share, and a maker for tests that break theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.service import Service


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Service]:
    """A service that no test may harm."""
    with Service(tmp_path_factory.mktemp("shared") / "data", models_dir) as running:
        yield running


@pytest.fixture
def new_service(tmp_path: Path, models_dir: Path) -> Iterator[Callable[..., Service]]:
    """Starts services of the test's own, each with the settings it names."""
    with ExitStack() as stack:

        def start(**settings: Any) -> Service:
            return stack.enter_context(Service(tmp_path / "data", models_dir, **settings))

        yield start
