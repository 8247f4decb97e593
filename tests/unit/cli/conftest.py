"""A real api process, and ``rockiln`` commands beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.front import ServedFront


@pytest.fixture
def serve_front(tmp_path: Path) -> Iterator[Callable[..., ServedFront]]:
    with ExitStack() as stack:

        def start(**changes: Any) -> ServedFront:
            return stack.enter_context(ServedFront(tmp_path, **changes))

        yield start


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedFront]:
    """One api for all tests of a module."""
    with ServedFront(tmp_path_factory.mktemp("served")) as front:
        yield front
