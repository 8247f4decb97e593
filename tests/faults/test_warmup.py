"""A warm-up has clocks of its own: what would be a hang elsewhere may be a search for kernels.

Source: a first 1600x1200 SDXL decode took 37 minutes of MIOpen's solver search, then 20 s.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from support.fault_bench import FaultBench


def warm_up(bench: FaultBench, sizes: str) -> subprocess.CompletedProcess[str]:
    bench.worker(lambda worker: worker.state == "ready")
    environment = {**bench.settings.as_environment(), "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-m", "rockiln", "warmup", "paper", "--sizes", sizes, "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("short", ["decode_seconds", "attempt_deadline_seconds"])
def test_a_decode_that_searches_is_not_killed_by_the_clocks_of_pictures(
    bench: FaultBench, short: str
) -> None:
    clocks: dict[str, Any] = {"first_step_seconds": 0.5, short: 0.5}
    bench.start("!slow=1500@decode", **clocks)
    ran = warm_up(bench, "64x64,128x64")
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert [(size["size"], size["state"]) for size in said["sizes"]] == [
        ("64x64", "done"),
        ("128x64", "done"),
    ]
    jobs = bench.store.jobs.page(limit=9)
    assert [(job.purpose, job.attempt) for job in jobs] == [("warm_up", 1)] * 2
    assert {picture.digest for job in jobs for picture in job.pictures} == {None}
    assert bench.starts() == 1


def test_a_decode_that_never_ends_is_ended_by_the_warm_ups_own_clock(bench: FaultBench) -> None:
    bench.start("!hang@decode", warm_up_decode_seconds=1.0, decode_seconds=0.2, max_attempts=1)
    ran = warm_up(bench, "64x64")
    assert ran.returncode == 1
    (size,) = json.loads(ran.stdout)["sizes"]
    assert size["state"] == "quarantined"
    assert "no progress for 1 s (clock warm_up_decode)" in size["detail"]
