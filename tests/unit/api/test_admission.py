"""What is taken into the queue, what is refused before it, and where a job stands in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from rockiln.domain.fault import Fault, FaultCode
from rockiln.domain.fingerprint import fingerprint
from rockiln.domain.ladder import Rungs
from rockiln.store.records import Worker, WorkerState
from support.front import Front
from support.paper_model import PAPER

ASYNC = {"Prefer": "respond-async"}
# A small picture of the paper model fits into this, a large one does not on any rung.
CARD_BYTES = 1 << 30
NewFront = Callable[..., Front]


def report_memory(front: Front, total_bytes: int) -> None:
    """A worker whose device is that large."""
    now = time.time()
    device = {"kind": "gpu", "name": "a card", "total_bytes": total_bytes, "threads": 1}
    front.store.workers.report(
        Worker("gpu0", WorkerState.READY, "", device, {"torch": "0"}, now, now)
    )


def test_what_fits_into_no_device_is_refused_with_the_largest_size(front: Front) -> None:
    report_memory(front, CARD_BYTES)
    catalogue = front.services.catalogue
    catalogue.models[PAPER.id] = replace(PAPER, max_side_px=2048)
    large = {"prompt": "a boat", "width": 2048, "height": 2048, "num_images": 8}
    answer = front.client.post("/generate", json=large, headers=ASYNC)
    problem = answer.get_json()
    assert (answer.status_code, problem["code"]) == (422, "too_large_for_device")
    assert answer.headers["x-should-retry"] == "false"
    assert front.store.jobs.queue().waiting == 0
    smaller = problem["largest_size"]
    assert smaller["width"] < 2048
    assert front.submit(**smaller), "what was named is taken"


def test_what_fits_only_a_larger_device_of_the_host_is_taken(front: Front) -> None:
    report_memory(front, 1)
    front.hand.report()
    assert front.submit()


def test_a_job_that_fits_no_way_beside_a_pinned_model_is_refused(new_front: NewFront) -> None:
    front = new_front(pinned_models="heavy, gone")
    front.hand.report()  # 8 GiB
    catalogue = front.services.catalogue
    parameters = {"unet": 27 << 26}  # 6.75 GiB in float32
    catalogue.models["heavy"] = replace(PAPER, id="heavy", component_parameters=parameters)
    answer = front.client.post(
        "/generate", json={"prompt": "a boat", "model": PAPER.id}, headers=ASYNC
    )
    problem = answer.get_json()
    assert (answer.status_code, problem["code"]) == (422, "too_large_for_device")
    assert "beside the pinned heavy;" in problem["detail"]


def test_a_job_is_taken_while_no_device_is_known(front: Front) -> None:
    assert front.submit()


def test_a_refused_kind_of_request_is_told_why_and_until_when(front: Front) -> None:
    job = front.store.jobs.get(front.submit(seed=1))
    until = time.time() + 1000
    front.store.refusals.refuse(
        fingerprint(job.parameters), until, job_id=job.id, code="hang", detail="no step in 30 s"
    )
    answer = front.client.post(
        "/generate", json={"prompt": "another boat", "seed": 2}, headers=ASYNC
    )
    problem = answer.get_json()
    assert (answer.status_code, problem["code"]) == (422, "quarantined_request")
    assert (problem["job_id"], problem["reason"]) == (job.id, "hang")
    assert 900 < problem["retry_after_seconds"] <= 1000
    assert front.submit(width=128), "another kind of request is taken"


def test_a_repeat_is_answered_though_the_disk_is_full(front: Front) -> None:
    headers = {**ASYNC, "Idempotency-Key": "k"}
    first = front.client.post("/generate", json={"prompt": "a boat"}, headers=headers)
    object.__setattr__(front.settings, "min_free_disk_bytes", 1 << 60)
    again = front.client.post("/generate", json={"prompt": "a boat"}, headers=headers)
    other = front.client.post("/generate", json={"prompt": "a lake"}, headers=ASYNC)
    assert (again.status_code, again.get_json()["id"]) == (202, first.get_json()["id"])
    assert (other.status_code, other.get_json()["code"]) == (503, "storage_low")


def test_a_queue_full_of_work_says_when_there_is_room(new_front: NewFront) -> None:
    front = new_front(queue_max_seconds=40)
    front.submit()
    answer = front.client.post("/generate", json={"prompt": "a boat"}, headers=ASYNC)
    problem = answer.get_json()
    assert (answer.status_code, problem["code"], problem["reason"]) == (
        429,
        "queue_full",
        "seconds",
    )
    assert int(answer.headers["Retry-After"]) >= 20
    assert answer.headers["x-should-retry"] == "true"


def test_a_waiting_job_knows_its_place(front: Front) -> None:
    first, second = front.submit(), front.submit()
    place = front.client.get(f"/jobs/{second}").get_json()["queue"]
    assert (place["position"], place["eta_seconds"] > 0) == (2, True)
    front.hand.finish(front.hand.lease())
    assert front.client.get(f"/jobs/{first}").get_json()["queue"] is None
    assert front.client.get(f"/jobs/{second}").get_json()["queue"]["position"] == 1


def test_a_job_tells_its_failed_attempts_and_its_rungs(front: Front) -> None:
    job_id = front.submit()
    lease, _ = front.hand.lease()
    front.store.jobs.end_attempt(
        lease,
        Fault(FaultCode.GPU_OOM, "no room for 2 GiB", "decode"),
        max_attempts=3,
        rungs=Rungs.from_dict({"denoise": "full", "decode": "tiled"}),
        climbed=True,
        evidence="x-1.json",
    )
    job = front.client.get(f"/jobs/{job_id}").get_json()
    (attempt,) = job["attempts"]
    assert (attempt["reason"], attempt["stage"]) == ("gpu_oom", "decode")
    assert (attempt["type"], attempt["evidence"]) == ("/problems/gpu-oom", "x-1.json")
    assert (job["state"], job["rungs"]["decode"]) == ("retry_wait", "tiled")
    (fault,) = front.client.get("/system").get_json()["faults"]
    assert fault["job_id"] == job_id
    assert fault["next_step"]


@pytest.mark.parametrize("limit", [1, 3, 200])
def test_the_log_of_a_job_can_be_read_in_pages(front: Front, limit: int) -> None:
    job_id = front.submit()
    front.submit()  # its lines are not among them
    front.hand.finish(front.hand.lease())
    address: str | None = f"/jobs/{job_id}/events?limit={limit}"
    kinds: list[str] = []
    while address:
        page = front.client.get(address).get_json()
        kinds += [event["kind"] for event in page["events"]]
        address = page["next"] if page["events"] else None
    assert kinds == ["accepted", "leased", "latents_stored", "decoding", "published", "done"]


@pytest.mark.parametrize("query", ["after=-1", "limit=0", "limit=1001", "after=x", "since=1"])
def test_a_wrong_page_of_the_log_is_refused(front: Front, query: str) -> None:
    answer = front.client.get(f"/jobs/{front.submit()}/events?{query}")
    assert (answer.status_code, answer.get_json()["code"]) == (400, "invalid_request")
