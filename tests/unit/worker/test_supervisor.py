"""The supervisor as a process, over an engine that fails where it is told to."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rockiln.store.records import Worker
from rockiln.worker.supervisor import EXIT_LOCKED
from support.fault_bench import FaultBench
from support.service import eventually

pytestmark = pytest.mark.slow


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[FaultBench]:
    bench = FaultBench(tmp_path)
    yield bench
    sys.stdout.write(bench.log()[-10_000:])
    assert bench.stop() == [0] * len(bench.processes)


def test_a_job_ends_in_a_picture_and_its_latents_go(bench: FaultBench) -> None:
    bench.start()
    job = bench.ended(bench.submit(num_images=2))
    assert (job.state, job.attempt) == ("done", 1)
    assert all(picture.digest for picture in job.pictures)
    latents = bench.folder / "data" / "artefacts" / "latents" / job.id
    eventually(lambda: not latents.exists(), "the latents are gone")


@pytest.mark.parametrize(
    "switch", ["!kill@denoise.2#1", "!gibberish@denoise.2#1", "!kill@stored#1", "!half@encode#1"]
)
def test_what_an_engine_does_wrong_costs_an_attempt(bench: FaultBench, switch: str) -> None:
    bench.start()
    job = bench.ended(bench.submit(switch))
    assert (job.state, job.attempt) == ("done", 2)


def test_after_stored_latents_no_step_is_repeated(bench: FaultBench) -> None:
    """Field reports: the process dies after 20 of 20 steps, between sampling and the picture."""
    bench.start()
    job = bench.ended(bench.submit("!abort@stored#1"))
    assert job.pictures[0].details["resumed"]


def test_a_crash_after_the_last_picture_is_nobodys(bench: FaultBench) -> None:
    """Field reports: all work done, then "malloc(): invalid size" in an exit handler.

    The next job may have been sent to the engine that is about to break: it is not blamed either.
    """
    bench.start()
    jobs = [bench.submit("!heap@exit") for _ in range(4)]
    ended = [bench.ended(job) for job in jobs]
    assert {(job.state, job.attempt) for job in ended} == {("done", 1)}


def test_what_can_never_work_is_tried_once(bench: FaultBench) -> None:
    bench.start()
    job = bench.ended(bench.submit("!raise=request_bug@denoise"))
    assert (job.state, job.attempt, job.failure_detail) == ("failed", 1, "it was told to")


def test_a_job_that_kills_each_engine_is_quarantined_and_its_like_refused(
    bench: FaultBench,
) -> None:
    bench.start()
    job = bench.ended(bench.submit("!segv@denoise.2", width=72))
    assert (job.state, job.attempt) == ("quarantined", 3)
    assert "SIGSEGV" in (job.failure_detail or "")
    evidence = sorted(bench.store.artefacts.evidence_dir.glob("*.json"))
    assert len(evidence) == 3
    told = json.loads(evidence[-1].read_text())
    assert told["death"]["how"] == "signal SIGSEGV"
    assert "stub.py" in "".join(told["stacks"])


def test_a_job_whose_engine_somebody_kills_is_not_blamed(bench: FaultBench) -> None:
    """An operator's kill -9, three times over, is no reason to quarantine a job."""
    bench.start()
    job = bench.submit("!slow=100@denoise", num_inference_steps=20)
    for _ in range(4):
        eventually(lambda: bench.state(job) == "denoising", "the job runs")
        engine = bench.engine()
        assert engine is not None
        engine.kill()
        eventually(lambda: bench.state(job) != "denoising", "the death is seen")
    assert bench.ended(job).state == "done"


def test_an_engine_that_is_deaf_to_a_cancel_is_killed(bench: FaultBench) -> None:
    bench.start(cancel_grace_seconds=0.2, abort_grace_seconds=0.2)
    job = bench.submit("!deaf@denoise.2")
    eventually(lambda: bench.state(job) == "denoising", "the job runs")
    bench.store.jobs.cancel(job.id)
    bench.store.wake("worker")
    assert bench.ended(job).state == "cancelled"


@pytest.mark.parametrize(
    ("clock", "seconds"), [("attempt_deadline_seconds", 0.5), ("step_seconds", 0.3)]
)
def test_an_engine_that_hangs_is_replaced(bench: FaultBench, clock: str, seconds: float) -> None:
    settings: dict[str, Any] = {clock: seconds}
    bench.start(**settings)
    job = bench.ended(bench.submit("!hang@denoise.3#1"))
    assert (job.state, job.attempt) == ("done", 2)


def test_a_job_that_takes_too_long_altogether_fails_with_the_reason(bench: FaultBench) -> None:
    bench.start(job_deadline_seconds=1.5)
    job = bench.ended(bench.submit("!hang@denoise.3"))
    assert (job.state, job.failure_code) == ("failed", "job_deadline")


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        ("!exit=1@start", "exit status 1"),
        ("!raise=broken_model@start", "it was told to"),
        ("!silent@start", "not ready within"),
    ],
)
def test_an_engine_that_does_not_start_is_told_and_tried_again(
    bench: FaultBench, start: str, reason: str
) -> None:
    bench.start(
        start, start, "", start_seconds=1.0, model_load_seconds=0.5, restart_backoff_seconds=0.5,
        restart_backoff_max_seconds=0.5,
    )  # fmt: skip
    job = bench.submit()
    bench.worker(lambda worker: worker.state == "failed" and reason in worker.detail)
    assert bench.ended(job).state == "done"


def test_no_model_is_told_and_a_model_that_appears_is_taken(bench: FaultBench) -> None:
    bench.prepare()
    bench.models_dir.rename(bench.folder / "away")
    bench.supervise()
    bench.worker(lambda worker: "no model" in worker.detail)
    (bench.folder / "away").rename(bench.models_dir)
    assert bench.ended(bench.submit()).state == "done"


def test_a_stop_gives_the_job_back_and_a_restart_makes_it(bench: FaultBench) -> None:
    bench.start()
    job = bench.submit("!slow=200@denoise", num_inference_steps=20)
    eventually(lambda: bench.state(job) == "denoising", "the job runs")
    bench.process.terminate()
    assert bench.process.wait(30) == 0
    assert bench.state(job) == "accepted"
    bench.supervise()
    assert bench.ended(job).attempt == 1


def test_a_stop_lets_a_job_end_that_is_nearly_done(bench: FaultBench) -> None:
    bench.start(drain_seconds=10)
    job = bench.submit("!slow=500@decode")
    eventually(lambda: bench.state(job) == "decoding", "the job decodes")
    bench.process.terminate()
    assert bench.process.wait(30) == 0
    assert bench.state(job) == "done"


def test_a_dead_supervisors_job_is_taken_up_at_once(bench: FaultBench) -> None:
    bench.start(lease_seconds=3600)
    job = bench.submit("!slow=100@denoise")
    eventually(lambda: bench.state(job) == "denoising", "the job runs")
    bench.process.send_signal(signal.SIGKILL)
    bench.process.wait(30)
    bench.supervise()
    assert bench.ended(job).state == "done"


def test_one_worker_of_a_name(bench: FaultBench) -> None:
    bench.start()
    bench.worker(lambda worker: worker.state == "ready")
    first = bench.process
    assert bench.supervise().wait(30) == EXIT_LOCKED
    bench.processes = {"cpu0": first}


def test_the_record_names_the_running_clock_and_the_budget(bench: FaultBench) -> None:
    bench.start(step_seconds=77)
    job = bench.submit("!slow=300@denoise", num_inference_steps=8)

    def steps(worker: Worker) -> bool:
        attempt = (worker.health or {}).get("attempt") or {}
        return bool(attempt.get("clock") == "step")

    said = bench.worker(steps)
    assert said.health is not None
    assert said.health["attempt"]["job_id"] == job.id
    assert said.health["attempt"]["rungs"] == {"denoise": "full", "decode": "full"}
    assert 0 < said.health["attempt"]["clock_left_seconds"] <= 77
    assert said.health["restarts"]["deaths_in_window"] == 0
    assert bench.ended(job).state == "done"
