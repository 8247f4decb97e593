"""Moving what waits and deleting for good, by the API and by the pages."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from rockiln.store.keys import Scope
from support.front import Front

NewFront = Callable[..., Front]


def place(front: Front, job_id: str) -> int:
    found = front.store.jobs.place(job_id)
    assert found is not None
    return found.position


def move(front: Front, job_id: str, to: Any, **more: Any) -> Any:
    return front.client.post(f"/jobs/{job_id}/move", json={"to": to}, **more)


def test_a_waiting_job_is_moved(front: Front) -> None:
    first, second, third = (front.submit() for _ in range(3))
    answer = move(front, third, "first")
    assert answer.status_code == 200
    assert answer.get_json()["queue"]["position"] == 1
    assert [place(front, job) for job in (third, first, second)] == [1, 2, 3]
    move(front, third, "down")
    move(front, second, "up")
    assert [place(front, job) for job in (first, second, third)] == [1, 2, 3]


@pytest.mark.parametrize(
    "body", [{}, {"to": "last"}, {"to": 1}, {"to": ["up"]}, {"to": "up", "a": 1}]
)
def test_a_move_that_is_none_is_refused(front: Front, body: Any) -> None:
    answer = front.client.post(f"/jobs/{front.submit()}/move", json=body)
    assert answer.status_code == 400
    assert answer.get_json()["errors"][0]["field"] in {"to", "a"}


def test_what_does_not_wait_is_not_moved(front: Front) -> None:
    job_id = front.submit()
    front.hand.lease()
    answer = move(front, job_id, "up")
    assert (answer.status_code, answer.get_json()["code"]) == (409, "job_not_waiting")
    assert move(front, "0" * 32, "up").status_code == 404
    sent = front.send_form(f"/ui/jobs/{job_id}/move/up")
    assert sent.headers["Location"] == "/ui/queue"  # which tells that it runs


def test_only_the_owner_and_an_admin_move_and_see_a_job(new_front: NewFront) -> None:
    front = new_front(published_address="192.0.2.1:8000")
    names: dict[str, Scope] = {"one": "generate", "two": "generate", "boss": "admin"}
    own, other, admin = (
        {"Authorization": f"Bearer {front.store.keys.create(name, [scope])}"}
        for name, scope in names.items()
    )

    def send(key: dict[str, str]) -> str:
        headers = key | {"Prefer": "respond-async"}
        body = front.client.post("/generate", json={"prompt": "a boat"}, headers=headers).get_json()
        return str(body["id"])

    jobs = [send(own), send(other), send(own)]
    assert move(front, jobs[2], "first", headers=other).status_code == 404
    assert place(front, jobs[2]) == 3
    assert move(front, jobs[2], "first", headers=own).status_code == 200
    assert [place(front, job) for job in jobs] == [3, 2, 1]
    assert move(front, jobs[0], "first", headers=admin).status_code == 200
    assert [place(front, job) for job in jobs] == [1, 2, 3]
    page = front.client.get("/ui/queue", headers=admin).text
    assert re.findall(r"of (one|two)<", page) == ["one", "two", "one"]
    page = front.client.get("/ui/queue", headers=other).text
    assert jobs[1] in page
    assert not any(job in page for job in (jobs[0], jobs[2]))


def test_the_queue_page_shows_and_changes_the_order(front: Front) -> None:
    jobs = [front.submit(prompt=f"number {name}") for name in ("one", "two", "three")]
    sent = front.send_form(f"/ui/jobs/{jobs[2]}/move/first")
    assert (sent.status_code, sent.headers["Location"]) == (303, "/ui/queue")
    page = front.client.get("/ui/queue").text
    assert re.findall(r">(number \w+)</a>", page) == ["number three", "number one", "number two"]
    sent = front.send_form(f"/ui/jobs/{jobs[2]}/move/down", headers={"HX-Request": "true"})
    assert sent.text.lstrip().startswith('<div id="queue"')
    assert sent.headers["HX-Trigger"] == '{"said": "It is number 2 now."}'
    assert place(front, jobs[0]) == 1


def test_the_next_jobs_are_shown_of_a_long_queue(front: Front) -> None:
    jobs = [front.submit(prompt=f"sheet {number}") for number in range(53)]
    page = front.client.get("/ui/queue").text
    assert jobs[0] in page
    assert jobs[52] not in page


def test_a_job_is_deleted_for_good(front: Front) -> None:
    job_id = front.submit()
    front.hand.finish(front.hand.lease())
    for path in (f"/ui/jobs/{job_id}", "/ui/gallery?q=boat"):
        assert "Delete for good" in front.client.get(path).text
    sent = front.send_form(f"/ui/jobs/{job_id}/delete?q=boat")
    assert (sent.status_code, sent.headers["Location"]) == (303, "/ui/gallery?q=boat")
    for path in (f"/ui/jobs/{job_id}", f"/jobs/{job_id}", f"/jobs/{job_id}/artefacts/0"):
        assert front.client.get(path).status_code == 404
    assert front.send_form(f"/ui/jobs/{job_id}/delete").status_code == 404
    assert front.send_form(f"/ui/jobs/{front.submit()}/delete?before=x").status_code == 400
