"""What dies in the middle of a job costs work, never the job.

Source of the faults: field reports of image servers on Radeon cards whose process died after the
last step, or hung, and took the picture with it.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest

from support.service import Service, eventually

# Long enough on any machine to be met in the middle.
LONG: dict[str, Any] = {"prompt": "a lake", "seed": 3, "num_inference_steps": 90, "width": 512}


def denoising(service: Service, job_id: str) -> dict[str, Any]:
    """The job, some steps into its work."""

    def look() -> dict[str, Any] | None:
        job = service.job(job_id)
        assert job["state"] != "done", "the job was too short to be interrupted"
        return job if job["state"] == "denoising" and job["pictures"][0]["step"] > 1 else None

    return eventually(look, "the job denoises")


def test_sigkill_of_the_engine_in_the_middle_ends_in_the_same_picture(
    new_service: Callable[..., Service],
) -> None:
    service = new_service()
    expected = service.post(json=LONG).content
    job_id = service.submit(**LONG)
    denoising(service, job_id)
    service.kill(service.engine())
    job = service.wait_for(job_id, "done")
    assert job["attempt"] == 2
    assert service.get(f"/jobs/{job_id}/artefacts/0").content == expected


def test_sigkill_of_the_supervisor_ends_in_a_picture_and_leaves_no_engine_behind(
    new_service: Callable[..., Service],
) -> None:
    service = new_service()
    job_id = service.submit(**LONG)
    denoising(service, job_id)
    engine = service.engine()
    (supervisor,) = (p for p in service.processes("worker") if p.pid == engine.ppid())
    service.kill(supervisor)
    engine.wait(30)
    assert service.wait_for(job_id, "done")["attempt"] == 2


def test_sigkill_of_the_api_loses_nothing_that_was_accepted(
    new_service: Callable[..., Service],
) -> None:
    service = new_service()
    job_id = service.submit(**LONG)
    denoising(service, job_id)
    for process in service.processes("gunicorn"):
        process.send_signal(signal.SIGKILL)
    eventually(service.is_ready, "the api is back")
    assert service.wait_for(job_id, "done")["attempt"] == 1


def test_published_pictures_stay_when_the_engine_dies_between_two(
    new_service: Callable[..., Service],
) -> None:
    service = new_service()
    job_id = service.submit(**LONG | {"num_images": 2, "num_inference_steps": 60})

    def first_is_there() -> dict[str, Any] | None:
        job = service.job(job_id)
        assert job["state"] != "done", "the job was too short to be interrupted"
        return job if job["pictures"][0]["state"] == "published" else None

    before = eventually(first_is_there, "the first picture is published")
    service.kill(service.engine())
    after = service.wait_for(job_id, "done")
    assert after["attempt"] == 2
    assert after["pictures"][0] == before["pictures"][0]


def test_a_restart_of_everything_keeps_the_queue(new_service: Callable[..., Service]) -> None:
    service = new_service()
    jobs = [service.submit(**LONG | {"seed": seed}) for seed in (1, 2)]
    denoising(service, jobs[0])
    service.stop()
    service.start()
    ended = [service.wait_for(job_id, "done") for job_id in jobs]
    assert [job["attempt"] for job in ended] == [1, 1]  # a stop is no fault of the job


def test_an_engine_that_hangs_is_replaced_at_the_attempts_deadline(
    new_service: Callable[..., Service],
) -> None:
    service = new_service(attempt_deadline_seconds=12)
    job_id = service.submit(**LONG | {"num_inference_steps": 40})
    denoising(service, job_id)
    hung = service.engine()
    hung.send_signal(signal.SIGSTOP)
    assert service.get("/livez").status_code == 200
    job = service.wait_for(job_id, "done")
    assert job["attempt"] == 2
    assert not hung.is_running()


def test_a_job_that_kills_every_engine_ends_with_the_reason(
    new_service: Callable[..., Service],
) -> None:
    service = new_service(max_attempts=2)
    job_id = service.submit(**LONG)
    for attempt in (1, 2):
        while denoising(service, job_id)["attempt"] != attempt:
            continue  # bounded by the test's own time limit
        engine = service.engine()
        engine.send_signal(signal.SIGABRT)  # as a broken heap does; a kill from outside is no blame
        engine.wait(30)
    job = service.wait_for(job_id, "failed", "quarantined")
    assert job["failure"]["reason"] == "quarantined"
    assert "SIGABRT" in job["failure"]["detail"]
    (last, *_) = sorted((service.data_dir / "artefacts" / "evidence").glob("*.json"))[::-1]
    evidence = json.loads(last.read_text())
    assert LONG["prompt"] not in last.read_text()
    # All threads: the one that works and the one that reads commands.
    assert sum("hread 0x" in line for line in evidence["stacks"]) >= 2
    service.wait_ready()
    assert service.post(json={"prompt": "the next one"}).status_code == 200


@pytest.mark.parametrize("when", ["waiting", "running"])
def test_cancel_is_honoured_and_the_next_job_runs(service: Service, when: str) -> None:
    first = service.submit(**LONG)
    second = service.submit(**LONG)
    denoising(service, first)
    target = first if when == "running" else second
    assert service.delete(f"/jobs/{target}").status_code in {200, 202}
    service.wait_for(target, "cancelled")
    other = ({first, second} - {target}).pop()
    service.wait_for(other, "done")
