"""The suite can fail: with a protection taken out, its checks catch what comes of it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from support.fault_bench import FaultBench
from support.fault_checks import check_all_done, check_no_step_repeated, check_no_torn_file
from support.service import eventually

_RUN = """
import sys
from rockiln.settings import Settings
from rockiln.store.jobs import JobStore
from rockiln.worker import supervisor
{defect}
sys.exit(supervisor.run(Settings()))
"""
KEEPS_STALE_ATTEMPTS = "supervisor.Supervisor._end_stale_attempts = lambda *_, **__: None"
FORGETS_LATENTS = "JobStore.record_latents = lambda *_: None"


def broken_supervisor(bench: FaultBench, defect: str) -> subprocess.Popen[bytes]:
    """A supervisor with one protection taken out."""
    environment = {
        **bench.settings.as_environment(),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "FAULTS_BENCH": str(bench.bench),
    }
    process = subprocess.Popen([sys.executable, "-c", _RUN.format(defect=defect)], env=environment)
    bench.processes["broken"] = process
    return process


def test_a_supervisor_that_keeps_stale_attempts_is_caught(bench: FaultBench) -> None:
    bench.prepare(lease_seconds=3600)
    first = broken_supervisor(bench, KEEPS_STALE_ATTEMPTS)
    job = bench.submit("!slow=300@denoise")
    eventually(lambda: bench.state(job) == "denoising", "the job runs")
    first.kill()
    first.wait()
    broken_supervisor(bench, KEEPS_STALE_ATTEMPTS)
    later = bench.ended(bench.submit())
    with pytest.raises(AssertionError, match="not done"):
        check_all_done(bench, [later, job])


def test_a_supervisor_that_forgets_latents_is_caught(bench: FaultBench) -> None:
    bench.prepare()
    broken_supervisor(bench, FORGETS_LATENTS)
    job = bench.submit("!abort@stored#1")
    eventually(lambda: len(bench.ledger("step")) > job.parameters.num_inference_steps, "it repeats")
    with pytest.raises(AssertionError, match="denoised twice"):
        check_no_step_repeated(bench)
    broken = bench.processes.pop("broken")
    broken.kill()
    broken.wait()


def test_a_file_that_is_not_written_whole_is_caught(bench: FaultBench) -> None:
    bench.start()
    bench.ended(bench.submit("!torn@encode#1"))
    with pytest.raises(AssertionError, match="is torn"):
        check_no_torn_file(bench)
