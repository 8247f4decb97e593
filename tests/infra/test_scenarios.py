"""Molecule's scenarios: fresh hosts in containers, and hosts that must be refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOG_TAIL_LINES = 60


@pytest.mark.docker
@pytest.mark.timeout(2400)
# The last five share one host and stand in this order: molecule/README.md.
@pytest.mark.parametrize(
    "scenario",
    [
        "refused",
        "rocm_host",
        "shadowed",
        "default",
        "upgrade",
        "rollback",
        "misaligned",
        "monitored",
        "interrupted",
    ],
)
def test_scenario_passes(scenario: str, tmp_path: Path) -> None:
    log = tmp_path / "molecule.log"
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "NO_COLOR": "1",
    }
    with log.open("wb") as stream:
        done = subprocess.run(
            [sys.executable, "-m", "molecule", "test", "--scenario-name", scenario],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            check=False,
        )
    tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]
    assert done.returncode == 0, "\n".join(tail)
