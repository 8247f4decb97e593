"""The supervisor as a process, over an engine that fails on cue."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rockiln.settings import Settings
from rockiln.store.records import Job, QueueLimits, Worker
from rockiln.store.store import Store
from rockiln.worker.supervisor import EXIT_LOCKED
from support import scripted_engine
from support.parameters import parameters
from support.service import eventually

RUN = "import sys; from rockiln.settings import Settings; from rockiln.worker.supervisor import run"


class Bench:
    """A store, a supervisor on it, and the engine's script."""

    def __init__(self, folder: Path, models_dir: Path) -> None:
        self.folder = folder
        self.models_dir = folder / "models"
        self.models_dir.symlink_to(models_dir)
        self.store: Store
        self.process: subprocess.Popen[bytes]
        self.environment: dict[str, str]

    def start(self, *cues: str, **settings: Any) -> None:
        """Starts the supervisor; its first engine follows the first cue, and so on."""
        python = self.folder / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} {scripted_engine.__file__} "$@"\n')
        python.chmod(0o755)
        script = self.folder / "script.json"
        script.write_text(json.dumps(cues))
        chosen = Settings(
            public_dir=self.folder,
            data_dir=self.folder / "data",
            bundled_models_dir=self.models_dir,
            worker_python=python,
            **settings,
        )
        self.environment = {
            **chosen.as_environment(),
            "PYTHONPATH": os.pathsep.join(sys.path),
            "ENGINE_SCRIPT": str(script),
        }
        self.store = Store(chosen)
        self.store.prepare()
        self.process = self.supervisor()

    def supervisor(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", f"{RUN}; sys.exit(run(Settings()))"], env=self.environment
        )

    def submit(self, **changes: Any) -> Job:
        job = self.store.jobs.submit(parameters(**changes), limits=QueueLimits(max_jobs=10))
        self.store.wake("worker")
        return job

    def ended(self, job: Job) -> Job:
        def look() -> Job | None:
            now = self.store.jobs.get(job.id)
            return now if now.ended else None

        return eventually(look, "the job ends", seconds=30)

    def worker(self, wanted: Callable[[Worker], bool]) -> Worker:
        def look() -> Worker | None:
            return next(filter(wanted, self.store.workers.all()), None)

        return eventually(look, "the worker says so", seconds=30)

    def stop(self) -> int:
        self.process.terminate()
        status = self.process.wait(30)
        self.store.close()
        return status


@pytest.fixture
def bench(tmp_path: Path, models_dir: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path, models_dir)
    yield bench
    assert bench.stop() == 0


def test_a_job_ends_in_a_picture_and_its_latents_go(bench: Bench) -> None:
    bench.start("good")
    job = bench.ended(bench.submit(num_images=2))
    assert (job.state, job.attempt) == ("done", 1)
    assert all(picture.digest for picture in job.pictures)
    latents = bench.folder / "data" / "artefacts" / "latents" / job.id
    eventually(lambda: not latents.exists(), "the latents are gone")


@pytest.mark.parametrize("cue", ["die-at-step", "gibberish", "die-before-decode"])
def test_what_an_engine_does_wrong_costs_an_attempt(bench: Bench, cue: str) -> None:
    bench.start(cue, "good")
    job = bench.ended(bench.submit())
    assert (job.state, job.attempt) == ("done", 2)


def test_after_stored_latents_no_step_is_repeated(bench: Bench) -> None:
    """Field reports: the process dies after 20 of 20 steps, between sampling and the picture."""
    bench.start("die-before-decode", "good")
    job = bench.ended(bench.submit())
    assert job.pictures[0].details == {"resumed": True}


def test_a_crash_after_the_last_picture_is_not_the_jobs(bench: Bench) -> None:
    """Field reports: all work done, then "malloc(): invalid size" in an exit handler."""
    bench.start("abort-after-publishing")
    jobs = [bench.ended(bench.submit()) for _ in range(3)]
    assert {(job.state, job.attempt) for job in jobs} == {("done", 1)}


def test_an_engine_that_leaves_a_picture_unmade_is_not_believed(bench: Bench) -> None:
    bench.start("half", max_attempts=1)
    job = bench.ended(bench.submit())
    assert (job.state, job.failure_code) == ("failed", "engine_error")


def test_what_can_never_work_is_tried_once(bench: Bench) -> None:
    bench.start("request-bug")
    job = bench.ended(bench.submit())
    assert (job.state, job.attempt, job.failure_detail) == ("failed", 1, "no such thing")


def test_a_job_that_kills_each_engine_is_quarantined(bench: Bench) -> None:
    bench.start("die-at-step", max_attempts=2)
    job = bench.ended(bench.submit())
    assert (job.state, job.attempt) == ("quarantined", 2)
    assert "SIGKILL" in (job.failure_detail or "")


def test_an_engine_that_is_deaf_to_a_cancel_is_killed(bench: Bench) -> None:
    bench.start("deaf", cancel_grace_seconds=0.2)
    job = bench.submit()
    eventually(lambda: bench.store.jobs.get(job.id).state == "denoising", "the job runs")
    bench.store.jobs.cancel(job.id)
    bench.store.wake("worker")
    assert bench.ended(job).state == "cancelled"


def test_an_engine_that_hangs_is_killed_at_the_attempts_deadline(bench: Bench) -> None:
    bench.start("deaf", "good", attempt_deadline_seconds=0.5)
    job = bench.ended(bench.submit())
    assert (job.state, job.attempt) == ("done", 2)


@pytest.mark.parametrize(
    ("cue", "reason"),
    [
        ("exit-before-ready", "exit status 1"),
        ("start-failed", "unet is torn"),
        ("silent", "not ready within"),
    ],
)
def test_an_engine_that_does_not_start_is_told_and_tried_again(
    bench: Bench, cue: str, reason: str
) -> None:
    bench.start(cue, cue, "good", start_seconds=2)
    job = bench.submit()
    bench.worker(lambda worker: worker.state == "failed" and reason in worker.detail)
    assert bench.ended(job).state == "done"


def test_no_model_is_told_and_a_model_that_appears_is_taken(bench: Bench) -> None:
    bench.models_dir.rename(bench.folder / "away")
    bench.start("good")
    bench.worker(lambda worker: "no model" in worker.detail)
    (bench.folder / "away").rename(bench.models_dir)
    assert bench.ended(bench.submit()).state == "done"


def test_a_stop_gives_the_job_back_and_a_restart_makes_it(bench: Bench) -> None:
    bench.start("deaf", "good")
    job = bench.submit()
    eventually(lambda: bench.store.jobs.get(job.id).state == "denoising", "the job runs")
    bench.process.terminate()
    assert bench.process.wait(30) == 0
    assert bench.store.jobs.get(job.id).state == "accepted"
    bench.process = bench.supervisor()
    assert bench.ended(job).attempt == 1


def test_a_dead_supervisors_job_is_taken_up_at_once(bench: Bench) -> None:
    bench.start("deaf", "good", lease_seconds=3600)
    job = bench.submit()
    eventually(lambda: bench.store.jobs.get(job.id).state == "denoising", "the job runs")
    bench.process.send_signal(signal.SIGKILL)
    bench.process.wait(30)
    bench.process = bench.supervisor()
    assert bench.ended(job).attempt == 2


def test_one_worker_of_a_name(bench: Bench) -> None:
    bench.start("good")
    bench.worker(lambda worker: worker.state == "ready")
    assert bench.supervisor().wait(30) == EXIT_LOCKED
