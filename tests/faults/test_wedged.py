"""An engine that nothing can kill: its worker says so, and takes nobody down with it.

Source: containers that neither ``docker rm -f`` nor ``docker restart`` could remove while rocminfo
was stuck in the kernel. The stand-in is a frozen control group: SIGKILL waits there as it does in
uninterruptible sleep.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from support.fault_bench import FaultBench
from support.service import eventually

FREEZER = Path("/sys/fs/cgroup/freezer")
CLOCKS = {
    "step_seconds": 0.5,
    "first_step_seconds": 0.5,
    "abort_grace_seconds": 0.2,
    "reap_seconds": 0.5,
}


@pytest.fixture
def freezer() -> Iterator[Path]:
    folder = FREEZER / f"rockiln-test-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    yield folder
    (folder / "freezer.state").write_text("THAWED")
    eventually(lambda: not (folder / "cgroup.procs").read_text(), "the group is empty")
    folder.rmdir()


def freeze(folder: Path, pid: int) -> None:
    (folder / "cgroup.procs").write_text(str(pid))
    (folder / "freezer.state").write_text("FROZEN")
    eventually(lambda: "FROZEN" in (folder / "freezer.state").read_text(), "it is frozen")


def test_two_workers_one_wedged(
    bench: FaultBench, freezer: Path, figures: Callable[..., None]
) -> None:
    bench.prepare(**CLOCKS)
    wedged = bench.supervise(worker_name="gpu0")
    with bench.api() as api:
        job = bench.submit("!hang@denoise.2#1")
        eventually(lambda: bench.state(job) == "denoising", "the job hangs")
        engine = bench.engine(wedged)
        assert engine is not None
        freeze(freezer, engine.pid)
        frozen = time.monotonic()
        bench.supervise(worker_name="gpu1")
        said = bench.worker(lambda worker: worker.name == "gpu0" and worker.state == "wedged")
        seen = time.monotonic() - frozen
        assert "does not die" in said.detail
        # The other one takes the job, and all others; the front answers all the while.
        assert bench.ended(job).state == "done"
        jobs = [bench.submit() for _ in range(10)]
        assert {bench.ended(each).state for each in jobs} == {"done"}
        assert httpx.get(f"{api.url}/livez").status_code == httpx.codes.OK
        assert httpx.get(f"{api.url}/readyz").status_code == httpx.codes.OK
        # It keeps saying so, and leaves when it is asked to.
        later = bench.worker(
            lambda worker: worker.name == "gpu0" and worker.heartbeat_at > said.heartbeat_at
        )
        assert later.state == "wedged"
        bench.processes.pop("gpu0").terminate()
        assert wedged.wait(10) == 0
    assert seen < 5.0
    figures(seen_after=f"{seen:.1f}s", other_worker_done=len(jobs) + 1)


def test_a_wedge_that_dissolves_is_trusted_after_a_proof(bench: FaultBench, freezer: Path) -> None:
    bench.start(**CLOCKS)
    job = bench.submit("!hang@denoise.2#1")
    eventually(lambda: bench.state(job) == "denoising", "the job hangs")
    engine = bench.engine()
    assert engine is not None
    freeze(freezer, engine.pid)
    bench.worker(lambda worker: worker.state == "wedged")
    waiting = bench.submit()
    assert bench.state(waiting) == "accepted"
    (freezer / "freezer.state").write_text("THAWED")
    assert bench.ended(job).state == "done"
    assert bench.ended(waiting).state == "done"


def test_more_deaths_than_the_budget_are_a_wedge_until_a_canary_passes(bench: FaultBench) -> None:
    bench.start(*["!exit=1@start"] * 5, "", restart_budget=2, wedged_probe_seconds=1.0)
    said = bench.worker(lambda worker: worker.state == "wedged")
    assert "died within" in said.detail or "did not start" in said.detail
    assert bench.ended(bench.submit()).state == "done"
    assert bench.starts() == 6


def test_an_operator_ends_the_pause_of_a_wedge(bench: FaultBench) -> None:
    fails = "!exit=1@start"
    bench.start(*[fails] * 4, "", restart_budget=2, wedged_probe_seconds=3600.0)

    def unwedge(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "rockiln", "unwedge", *words],
            env={**bench.settings.as_environment(), "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )

    bench.worker(lambda worker: worker.state == "wedged")
    assert unwedge("nobody").returncode == 2
    again = unwedge()
    assert (again.returncode, bench.starts()) == (1, 4)
    assert "still wedged" in again.stderr
    healed = unwedge()
    assert (healed.returncode, bench.starts()) == (0, 5)
    assert "takes jobs again" in healed.stdout
    assert bench.ended(bench.submit()).state == "done"
    assert "no worker is wedged" in unwedge().stdout
