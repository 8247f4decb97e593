"""Scenarios that share one prepared host, in this order (molecule/README.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.scenario import assert_passes


@pytest.mark.docker
@pytest.mark.timeout(2400)
@pytest.mark.parametrize(
    "scenario", ["upgrade", "rollback", "misaligned", "monitored", "interrupted"]
)
def test_scenario_passes(scenario: str, tmp_path: Path) -> None:
    assert_passes(scenario, tmp_path / "log")
