"""``POST /generate``: every way it answers."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from werkzeug.test import TestResponse

from rockiln.domain.fault import Fault, FaultCode
from rockiln.store.records import Job, Lease
from support.front import Front

BODY = {"prompt": "a boat", "seed": 7}


def post(front: Front, body: dict[str, Any] | None = None, **headers: str) -> TestResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return front.client.post("/generate", json=body or BODY, headers=named)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "image/png"),
        ("image/jpeg", "image/jpeg"),
        ("image/png;q=0.5, image/webp", "image/webp"),
    ],
)
def test_a_waiting_call_is_answered_the_picture_that_accept_names(
    front: Front, accept: str, media_type: str
) -> None:
    with front.hand.working():
        answer = post(front, Accept=accept)
    assert (answer.status_code, answer.mimetype) == (200, media_type)
    job_id = answer.headers["Rockiln-Job-Id"]
    assert answer.data == f"{media_type.removeprefix('image/')} {job_id} 0".encode()
    assert answer.headers["Rockiln-Seed"] == "7"
    assert answer.headers["Rockiln-Model"] == "paper"
    assert answer.headers["Content-Location"] == f"/jobs/{job_id}"
    assert "Rockiln-Warnings" not in answer.headers


def test_format_wins_over_accept_and_the_contradiction_is_told(front: Front) -> None:
    with front.hand.working():
        answer = post(front, {**BODY, "format": "webp"}, Accept="image/jpeg")
    assert answer.mimetype == "image/webp"
    assert "format wins" in json.loads(answer.headers["Rockiln-Warnings"])[0]


def test_json_carries_the_pictures_and_all_that_is_known_of_them(front: Front) -> None:
    with front.hand.working():
        answer = post(front, {**BODY, "num_images": 2}, Accept="application/json").get_json()
    assert (answer["state"], answer["failure"]) == ("done", None)
    assert answer["parameters"]["num_inference_steps"] == 4
    first, second = answer["pictures"]
    assert base64.b64decode(second["base64"]) == f"png {answer['id']} 1".encode()
    assert (first["seed"], second["seed"]) == (7, 8)
    assert first["policies"] == ["channels_last"]
    assert first["seconds"] == {"denoise": 1.5}
    assert first["href"] == f"/jobs/{answer['id']}/artefacts/0"


def test_several_pictures_are_refused_where_one_fits_before_any_work_is_done(front: Front) -> None:
    answer = post(front, {**BODY, "num_images": 2}, Accept="image/png")
    assert answer.status_code == 406
    assert "application/json" in answer.get_json()["hint"]
    assert front.store.jobs.page(limit=1) == []


def test_several_pictures_may_be_asked_for_without_waiting(front: Front) -> None:
    answer = post(front, {**BODY, "num_images": 2}, Accept="image/png", Prefer="respond-async")
    assert answer.status_code == 202


def test_nothing_that_can_be_sent_is_accepted(front: Front) -> None:
    answer = post(front, Accept="text/html")
    assert (answer.status_code, answer.get_json()["code"]) == (406, "not_acceptable")


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("respond-async", "respond-async"),
        ("wait=0", "wait=0"),
        ("respond-async, wait=0", "respond-async, wait=0"),
    ],
)
def test_who_prefers_not_to_wait_is_told_where_the_job_is(
    front: Front, prefer: str, applied: str
) -> None:
    answer = post(front, Prefer=prefer)
    job = answer.get_json()
    assert (answer.status_code, job["state"]) == (202, "accepted")
    assert answer.headers["Location"] == f"/jobs/{job['id']}"
    assert answer.headers["Preference-Applied"] == applied


def test_a_wait_that_ends_first_is_answered_the_job_which_goes_on(
    new_front: Callable[..., Front],
) -> None:
    front = new_front(wait_seconds=0.01)
    answer = post(front)
    assert (answer.status_code, answer.get_json()["state"]) == (202, "accepted")
    front.hand.finish(front.hand.lease())
    assert front.client.get(answer.headers["Location"]).get_json()["state"] == "done"


def test_a_call_without_a_slot_is_answered_at_once(new_front: Callable[..., Front]) -> None:
    answer = post(new_front(waiting_slots=0))
    assert answer.status_code == 202
    assert "as many calls wait" in answer.headers["Rockiln-Warnings"]


def test_a_stopping_server_lets_waiting_calls_go(front: Front) -> None:
    front.services.waiting_room.release_when(lambda: True)
    assert post(front).status_code == 202


def test_warnings_fit_into_a_header_whatever_they_say(front: Front) -> None:
    said = ("Ünïcode\r\nX-Evil: 1", "later words were left out")

    def finish(leased: tuple[Lease, Job]) -> None:
        front.hand.finish(leased, warnings=said)

    with front.hand.working(finish):
        answer = post(front)
    assert tuple(json.loads(answer.headers["Rockiln-Warnings"])) == said
    assert "X-Evil" not in answer.headers


EXPECTED_FAILURES = {
    FaultCode.REQUEST_BUG: (422, False),
    FaultCode.BROKEN_MODEL: (503, False),
    FaultCode.BAD_OUTPUT: (500, False),
    FaultCode.GPU_OOM: (422, False),
    FaultCode.ENGINE_ERROR: (500, False),
    FaultCode.LEASE_EXPIRED: (503, True),
    FaultCode.BOOT_FAILURE: (503, True),
}


@pytest.mark.parametrize(("code", "expected"), EXPECTED_FAILURES.items())
def test_a_failed_job_is_told_by_its_fault(
    front: Front, code: FaultCode, expected: tuple[int, bool]
) -> None:
    def fail(leased: tuple[Lease, Job]) -> None:
        front.hand.fail(leased, Fault(code, "this is why"))

    with front.hand.working(fail):
        answer = post(front)
    problem = answer.get_json()
    assert (answer.status_code, answer.headers["x-should-retry"] == "true") == expected
    assert (problem["code"], problem["detail"]) == (code, "this is why")
    assert problem["job"] == f"/jobs/{answer.headers['Rockiln-Job-Id']}"


@pytest.mark.parametrize("code", [FaultCode.ENGINE_DIED, FaultCode.ATTEMPT_DEADLINE])
def test_a_quarantined_job_is_shown_as_failed(front: Front, code: FaultCode) -> None:
    def fail(leased: tuple[Lease, Job]) -> None:
        front.hand.fail(leased, Fault(code, "signal 11"))

    with front.hand.working(fail):
        answer = post(front)
    assert (answer.status_code, answer.get_json()["reason"]) == (500, "quarantined")
    job = front.client.get(answer.headers["Content-Location"]).get_json()
    assert (job["state"], job["failure"]["reason"]) == ("failed", "quarantined")


def test_a_cancelled_job_is_a_conflict(front: Front) -> None:
    def cancel(leased: tuple[Lease, Job]) -> None:
        front.store.jobs.record_cancelled(leased[0])
        front.store.wake("api")

    with front.hand.working(cancel):
        answer = post(front)
    assert (answer.status_code, answer.get_json()["code"]) == (409, "job_cancelled")


def test_the_same_key_and_body_are_one_job_whatever_the_spelling(front: Front) -> None:
    first = post(front, {"prompt": "a boat", "seed": 7}, Idempotency_Key="k", Prefer="wait=0")
    again = post(
        front, {"seed": 7, "prompt": "a boat", "format": None}, Idempotency_Key="k", Prefer="wait=0"
    )
    assert first.get_json()["id"] == again.get_json()["id"]


def test_a_repeated_call_is_answered_the_picture_that_was_made(front: Front) -> None:
    with front.hand.working():
        first = post(front, Idempotency_Key="k")
    again = post(front, Idempotency_Key="k")
    assert (again.status_code, again.data) == (200, first.data)


def test_the_pictures_of_an_earlier_job_come_as_json_if_they_are_several(front: Front) -> None:
    body = {**BODY, "num_images": 2}
    with front.hand.working():
        post(front, body, Idempotency_Key="k", Accept="application/json")
    again = post(front, body, Idempotency_Key="k", Prefer="wait=0")
    assert len(again.get_json()["pictures"]) == 2


def test_a_picture_whose_file_is_gone_is_said_to_be_gone(front: Front) -> None:
    with front.hand.working():
        post(front, Idempotency_Key="k")
    for path in front.settings.artefacts_dir.glob("pictures/*/*"):
        path.unlink()
    assert post(front, Idempotency_Key="k").get_json()["code"] == "unknown_artefact"


def test_the_same_key_with_another_body_is_refused(front: Front) -> None:
    post(front, Idempotency_Key="k", Prefer="wait=0")
    answer = post(front, {"prompt": "a ship"}, Idempotency_Key="k", Prefer="wait=0")
    assert (answer.status_code, answer.get_json()["code"]) == (422, "idempotency_conflict")


@pytest.mark.parametrize("key", ["", "with space", "k" * 256, "ü"])
def test_a_key_that_is_no_key_is_refused(front: Front, key: str) -> None:
    answer = post(front, Idempotency_Key=key)
    assert answer.status_code == 400
    assert answer.get_json()["errors"][0]["field"] == "Idempotency-Key"


def test_a_full_queue_says_when_to_come_again(new_front: Callable[..., Front]) -> None:
    front = new_front(queue_max_jobs=1)
    front.submit()
    answer = post(front)
    assert (answer.status_code, answer.headers["x-should-retry"]) == (429, "true")
    assert int(answer.headers["Retry-After"]) >= 1


def test_nothing_is_accepted_on_a_full_disk(new_front: Callable[..., Front]) -> None:
    front = new_front(min_free_disk_bytes=1 << 62)
    answer = post(front)
    assert (answer.status_code, answer.get_json()["floor_bytes"]) == (503, 1 << 62)
    assert front.store.jobs.page(limit=1) == []


def test_a_model_that_is_not_there_is_named_with_those_that_are(front: Front) -> None:
    answer = post(front, {**BODY, "model": "other"})
    assert (answer.status_code, answer.get_json()["known"]) == (404, ["paper"])


def test_a_broken_model_is_refused_with_its_reason(new_front: Callable[..., Front]) -> None:
    front = new_front(broken={"torn": "unet is truncated"})
    answer = post(front, {**BODY, "model": "torn"})
    assert answer.status_code == 503
    assert "unet is truncated" in answer.get_json()["detail"]


def test_a_seed_is_chosen_and_told_where_none_is_given(front: Front) -> None:
    seeds = {
        post(front, {"prompt": "a boat"}, Prefer="wait=0").get_json()["parameters"]["seed"]
        for _ in range(4)
    }
    assert len(seeds) == 4
