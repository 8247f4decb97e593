"""A real api process, and ``rockiln`` commands beside it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.front import ServedFront


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedFront]:
    """One api for all tests of this folder."""
    with ServedFront(tmp_path_factory.mktemp("served")) as front:
        yield front
