"""Jobs that were accepted."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from rockiln.domain.fault import Fault, FaultCode
from support.front import Front


def test_a_listing_is_newest_first_and_continues_where_it_ended(front: Front) -> None:
    job_ids = [front.submit() for _ in range(5)]
    seen, address = [], "/jobs?limit=2"
    while address:
        page = front.client.get(address).get_json()
        seen += [job["id"] for job in page["jobs"]]
        address = page["next"]
    assert seen == job_ids[::-1]


def test_a_listing_keeps_its_filter_on_every_page(front: Front) -> None:
    for _ in range(3):
        front.submit()
        front.hand.finish(front.hand.lease())
    front.submit()
    page = front.client.get("/jobs?limit=2&state=done").get_json()
    rest = front.client.get(page["next"]).get_json()
    assert [job["state"] for job in page["jobs"] + rest["jobs"]] == ["done"] * 3
    assert rest["next"] is None


def test_quarantined_jobs_are_listed_among_the_failed(front: Front) -> None:
    for code in (FaultCode.BROKEN_MODEL, FaultCode.ENGINE_DIED):
        front.submit()
        front.hand.fail(front.hand.lease(), Fault(code, "why"))
    jobs = front.client.get("/jobs?state=failed").get_json()["jobs"]
    assert [job["failure"]["reason"] for job in jobs] == ["quarantined", "broken_model"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=many", "limit"),
        ("limit=1&limit=2", "limit"),
        ("before=-1", "before"),
        ("before=99999999999999999999", "before"),
        ("state=quarantined", "state"),
        ("sort=asc", "sort"),
    ],
)
def test_a_wrong_parameter_is_named(client: FlaskClient, query: str, field: str) -> None:
    answer = client.get(f"/jobs?{query}")
    assert (answer.status_code, answer.get_json()["errors"][0]["field"]) == (400, field)


def test_a_job_shows_how_far_it_is(front: Front) -> None:
    job_id = front.submit(num_images=2)
    lease, _ = front.hand.lease()
    front.store.jobs.record_step(lease, 0, 3)
    job = front.client.get(f"/jobs/{job_id}").get_json()
    assert job["state"] == "leased"  # its other picture has not begun
    assert job["progress"] == {
        "steps_done": 3, "steps_total": 8, "pictures_done": 0, "pictures_total": 2
    }  # fmt: skip
    assert job["pictures"][0]["href"] is None


@pytest.mark.parametrize(
    "job_id", ["0" * 32, "A" * 32, "x", "0" * 33, "%00", "..%2f..%2fetc%2fpasswd", "%ff%fe"]
)
def test_what_is_no_job_is_not_found(client: FlaskClient, job_id: str) -> None:
    for address in (f"/jobs/{job_id}", f"/jobs/{job_id}/artefacts/0"):
        assert client.get(address).status_code == 404
    assert client.delete(f"/jobs/{job_id}").status_code == 404


def test_a_waiting_job_is_cancelled_at_once(front: Front) -> None:
    answer = front.client.delete(f"/jobs/{front.submit()}")
    assert (answer.status_code, answer.get_json()["state"]) == (200, "cancelled")


def test_a_running_job_is_asked_to_stop(front: Front) -> None:
    job_id = front.submit()
    lease, _ = front.hand.lease()
    answer = front.client.delete(f"/jobs/{job_id}")
    assert (answer.status_code, answer.get_json()["cancel_requested"]) == (202, True)
    assert front.store.jobs.renew(lease, seconds=10)


def test_a_job_that_has_ended_cannot_be_cancelled(front: Front) -> None:
    job_id = front.submit()
    front.hand.finish(front.hand.lease())
    answer = front.client.delete(f"/jobs/{job_id}")
    assert (answer.status_code, answer.get_json()["state"]) == (409, "done")


@pytest.mark.parametrize("reached", ["accepted", "leased", "done"])
def test_a_purged_job_is_gone_for_good(front: Front, reached: str) -> None:
    job_id = front.submit()
    if reached != "accepted":
        leased = front.hand.lease()
        if reached == "done":
            front.hand.finish(leased)
        else:
            assert not front.store.jobs.renew(leased[0], seconds=10)
    assert front.client.delete(f"/jobs/{job_id}?purge=true").status_code == 204
    for address in (f"/jobs/{job_id}", f"/jobs/{job_id}/artefacts/0", f"/jobs/{job_id}/events"):
        assert front.client.get(address).status_code == 404
    assert front.client.delete(f"/jobs/{job_id}?purge=true").status_code == 404
    assert front.client.get("/jobs").get_json()["jobs"] == []
    if reached == "leased":  # the worker is told to drop it
        assert front.store.jobs.renew(leased[0], seconds=10)
        front.store.jobs.record_cancelled(leased[0])
    assert front.store.deletion.finish(fresh_seconds=0) == 1
    assert list(front.settings.artefacts_dir.glob("pictures/*/*")) == []


def test_what_purge_takes_is_told(front: Front) -> None:
    answer = front.client.delete(f"/jobs/{front.submit()}?purge=perhaps")
    assert answer.status_code == 400
    assert answer.get_json()["errors"][0]["field"] == "purge"


def test_a_picture_may_be_kept_for_ever_and_read_in_parts(front: Front) -> None:
    job_id = front.submit()
    front.hand.finish(front.hand.lease())
    whole = front.client.get(f"/jobs/{job_id}/artefacts/0")
    assert (whole.mimetype, whole.data) == ("image/png", f"png {job_id} 0".encode())
    assert "immutable" in whole.headers["Cache-Control"]
    same = front.client.get(whole.request.path, headers={"If-None-Match": whole.headers["ETag"]})
    assert same.status_code == 304
    part = front.client.get(whole.request.path, headers={"Range": "bytes=0-2"})
    assert (part.status_code, part.data) == (206, b"png")
    beyond = front.client.get(whole.request.path, headers={"Range": "bytes=900-"})
    assert (beyond.status_code, beyond.get_json()["code"]) == (416, "range_not_satisfiable")


@pytest.mark.parametrize("index", ["1", "-1", "x", "00000000", "9" * 30])
def test_a_picture_the_job_does_not_have_is_not_found(front: Front, index: str) -> None:
    job_id = front.submit()
    front.hand.finish(front.hand.lease())
    answer = front.client.get(f"/jobs/{job_id}/artefacts/{index}")
    assert (answer.status_code, answer.get_json()["code"]) == (404, "unknown_artefact")


def test_a_picture_that_is_not_there_yet_is_told_so(front: Front) -> None:
    answer = front.client.get(f"/jobs/{front.submit()}/artefacts/0").get_json()
    assert (answer["detail"], answer["state"]) == ("the picture is not there yet", "accepted")


def test_a_picture_that_was_never_made_is_told_so(front: Front) -> None:
    job_id = front.submit()
    front.client.delete(f"/jobs/{job_id}")
    assert "never made" in front.client.get(f"/jobs/{job_id}/artefacts/0").get_json()["detail"]
