"""An app on a fresh store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from support.front import Front, ServedFront, open_front


@pytest.fixture
def new_front(tmp_path: Path) -> Iterator[Callable[..., Front]]:
    """Makes a front with settings of the test's own."""
    with ExitStack() as stack:
        yield lambda **changes: stack.enter_context(open_front(tmp_path, **changes))


@pytest.fixture
def front(new_front: Callable[..., Front]) -> Front:
    return new_front()


@pytest.fixture(scope="module")
def shared_front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """One for a module's tests that leave nothing behind."""
    with open_front(tmp_path_factory.mktemp("front")) as front:
        yield front


@pytest.fixture
def client(front: Front) -> FlaskClient:
    return front.client


@pytest.fixture
def serve_front(tmp_path: Path) -> Iterator[Callable[..., ServedFront]]:
    """Starts a real api process with settings of the test's own."""
    with ExitStack() as stack:

        def start(**changes: Any) -> ServedFront:
            return stack.enter_context(ServedFront(tmp_path, **changes))

        yield start
