"""Scenarios on hosts of their own.

The last one needs images that the kiln's row makes meanwhile.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from support.scenario import assert_passes


@pytest.mark.docker
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("scenario", ["refused", "rocm_host", "shadowed", "default"])
def test_scenario_passes(scenario: str, tmp_path: Path) -> None:
    assert_passes(scenario, tmp_path / "log")
