"""What a hub offers."""

from __future__ import annotations

import pytest

from support.sd15_repository import write_repository


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return write_repository(tmp_path_factory.mktemp("repository") / "paper")
