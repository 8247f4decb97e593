"""Molecule's scenarios, played as a person would: ``molecule test -s NAME``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOG_TAIL_LINES = 60


def assert_passes(scenario: str, log: Path) -> None:
    """Plays the scenario; if it fails, the end of its log says how."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "molecule", "test", "--scenario-name", scenario],
            cwd=ROOT,
            env={**os.environ, "PATH": path, "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)  # its plays too
            raise
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    assert code == 0, "\n".join(lines[-LOG_TAIL_LINES:])
