"""How long ./bootstrap.sh takes on a host where everything is there already."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from benchmarks.result import Figure, Result

ROOT = Path(__file__).resolve().parents[2]


def measure(*, runs: int) -> Result:
    """Runs bootstrap on this very host: it must be one that may carry the service.

    Raises:
        subprocess.CalledProcessError: a run failed; its output is on the terminal.
    """
    _bootstrap()  # whatever is missing is made here, uncounted
    again = [_bootstrap() for _ in range(runs)]
    shutil.rmtree(ROOT / ".venv")
    without_venv = [_bootstrap()]
    return Result(
        benchmark="bootstrap",
        figures=[
            Figure("second run", "s", again, bound=60),
            Figure("images cached, no .venv", "s", without_venv, bound=120),
        ],
    )


def _bootstrap() -> float:
    started = time.perf_counter()
    subprocess.run([str(ROOT / "bootstrap.sh"), "--yes"], check=True, cwd=ROOT)
    return time.perf_counter() - started
