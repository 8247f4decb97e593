"""The api as it is served: a real gunicorn process, and clients that misbehave."""

from __future__ import annotations

import signal
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest

from rockiln.domain.job import WAITING_STATES
from support.front import ServedFront
from support.service import eventually

pytestmark = pytest.mark.slow

Serve = Callable[..., ServedFront]
BODY = {"prompt": "a boat"}
SLOTS = 5
JSON_HEADERS = "Host: localhost\r\nContent-Type: application/json\r\n"


def accepted(front: ServedFront, count: int) -> bool:
    return len(front.store.jobs.page(limit=100, states=tuple(WAITING_STATES))) == count


def answers(front: ServedFront, path: str) -> bool:
    try:
        return httpx.get(f"{front.url}{path}", timeout=0.5).is_success
    except httpx.ReadTimeout:
        return False


def call(front: ServedFront, raw: bytes, *, torn: bool = False) -> bytes:
    """Sends bytes as they are; returns all that comes back."""
    with socket.create_connection(("127.0.0.1", front.port), timeout=30) as connection:
        connection.sendall(raw)
        if torn:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while not complete(answer):
            part = connection.recv(65536)
            if not part:
                break
            answer += part
    return answer


def complete(answer: bytes) -> bool:
    head, separator, body = answer.partition(b"\r\n\r\n")
    lengths = [
        int(line.partition(b":")[2])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    ]
    return bool(separator) and bool(lengths) and len(body) >= lengths[0]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedFront]:
    """For tests that leave no job behind."""
    folder = tmp_path_factory.mktemp("shared")
    with ServedFront(folder, waiting_slots=SLOTS, api_threads=8, max_body_bytes=1 << 20) as front:
        yield front


def test_health_and_submissions_are_answered_while_every_waiting_slot_is_taken(
    shared: ServedFront,
) -> None:
    front = shared
    with ThreadPoolExecutor() as pool:
        waiting: list[Future[httpx.Response]] = [
            pool.submit(httpx.post, f"{front.url}/generate", json=BODY, timeout=120)
            for _ in range(SLOTS)
        ]
        eventually(lambda: accepted(front, SLOTS), "every slot is taken")
        for _ in range(20):
            assert httpx.get(f"{front.url}/livez").status_code == 200
        one_more = httpx.post(f"{front.url}/generate", json=BODY)
        assert one_more.status_code == 202
        assert httpx.get(f"{front.url}{one_more.headers['Location']}").json()["state"] == "accepted"
        with front.hand.working():
            answers = [call.result(60) for call in waiting]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["content-type"] for answer in answers} == {"image/png"}


def test_the_process_looks_alive_while_the_disk_holds_every_thread(serve_front: Serve) -> None:
    """Ten times too many submissions on a slow disk: `/livez` took 0.4 s, found by R15."""
    threads = 8
    front = serve_front(waiting_slots=1, api_threads=threads)
    file = front.store.database.file
    assert file is not None
    stalled = sqlite3.connect(file, isolation_level=None)
    stalled.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(threads) as clients:
        calls = [
            clients.submit(
                httpx.post,
                f"{front.url}/generate",
                json=BODY,
                headers={"Prefer": "respond-async"},
                timeout=60,
            )
            for _ in range(threads)
        ]
        eventually(lambda: not answers(front, "/jobs"), "every thread is held")
        assert httpx.get(f"{front.url}/livez", timeout=2).is_success
        assert not any(each.done() for each in calls)
        stalled.rollback()
        assert [each.result().status_code for each in calls] == [202] * threads
    stalled.close()


def test_a_client_that_leaves_frees_its_place_and_keeps_its_job(serve_front: Serve) -> None:
    front = serve_front(waiting_slots=1)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{front.url}/generate", json=BODY, timeout=httpx.Timeout(30, read=0.5))
    (job,) = front.store.jobs.page(limit=9)
    assert not job.cancel_requested

    def has_place() -> bool:
        answer = httpx.post(
            f"{front.url}/generate", json=BODY, headers={"Prefer": "wait=1"}, timeout=30
        )
        return answer.status_code == 202 and "Rockiln-Warnings" not in answer.headers

    eventually(has_place, "the place is free while the job still waits")
    assert '"client_left": true' in front.log.read_text()
    front.hand.finish(front.hand.lease())
    assert httpx.get(f"{front.url}/jobs/{job.id}").json()["state"] == "done"


def test_a_stopping_api_answers_who_waits_and_leaves_without_an_error(serve_front: Serve) -> None:
    front = serve_front()
    process = front.process
    assert process is not None
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(httpx.post, f"{front.url}/generate", json=BODY, timeout=120)
        eventually(lambda: accepted(front, 1), "a call waits")
        process.send_signal(signal.SIGTERM)
        answer = waiting.result(60)
    assert answer.status_code == 202
    assert process.wait(60) == 0
    assert not front.store.jobs.page(limit=1)[0].cancel_requested
    assert not list((front.log.parent / "data/store/wake").glob("api-*"))
    assert "Traceback" not in front.log.read_text()


def test_a_killed_api_loses_no_job_and_comes_back(serve_front: Serve) -> None:
    front = serve_front()
    job_id = httpx.post(
        f"{front.url}/generate", json=BODY, headers={"Prefer": "respond-async"}
    ).json()["id"]
    assert front.process is not None
    front.process.kill()
    front.process.wait(60)
    eventually(lambda: not listens(front.port), "gunicorn's worker noticed and left")
    with front:
        assert httpx.get(f"{front.url}/jobs/{job_id}").json()["state"] == "accepted"


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


REQUESTS = [
    ("GARBAGE\r\n\r\n", 400),
    ("GET /" + "a" * 9000 + " HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
    ("GET / HTTP/1.1\r\nX: " + "a" * 9000 + "\r\n\r\n", 431),
    ("GET /livez HTTP/1.1\r\n\r\n", 421),
    ("GET /livez HTTP/1.1\r\nHost: localhost\r\nExpect: a miracle\r\n\r\n", 400),
    ("FOO /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
    (f"POST /generate HTTP/1.1\r\n{JSON_HEADERS}Transfer-Encoding: gzip\r\n\r\n", 400),
    (
        f"POST /generate HTTP/1.1\r\n{JSON_HEADERS}Content-Length: 9\r\n"
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        f"POST /generate HTTP/1.1\r\n{JSON_HEADERS}Transfer-Encoding: chunked\r\n\r\n"
        "zz\r\n{}\r\n0\r\n\r\n",
        400,
    ),
    (
        f"POST /generate HTTP/1.1\r\n{JSON_HEADERS}Transfer-Encoding: chunked\r\n\r\n"
        f"200000\r\n{' ' * 0x200000}\r\n0\r\n\r\n",
        413,
    ),
    (f"POST /generate HTTP/1.1\r\n{JSON_HEADERS}Content-Length: 2000000\r\n\r\n{{", 413),
]
TORN = [
    f'POST /generate HTTP/1.1\r\n{JSON_HEADERS}Content-Length: 99\r\n\r\n{{"prompt": "a"}}',
    f'POST /generate HTTP/1.1\r\n{JSON_HEADERS}Transfer-Encoding: chunked\r\n\r\nff\r\n{{"pro',
]


def test_requests_that_no_library_would_send_are_answered_with_problems(
    shared: ServedFront,
) -> None:
    front = shared
    before = front.store.jobs.page(limit=100)
    cases = [(raw, status, False) for raw, status in REQUESTS]
    cases += [(raw, 400, True) for raw in TORN]
    for raw, status, torn in cases:
        answer = call(front, raw.encode(), torn=torn)
        assert answer.startswith(f"HTTP/1.1 {status} ".encode()), (raw[:80], answer[:300])
        assert b"application/problem+json" in answer
        assert b'"hint":' in answer
    assert front.store.jobs.page(limit=100) == before
    assert "Traceback" not in front.log.read_text()


def test_a_waiting_call_is_answered_by_a_process_that_was_never_waked(
    shared: ServedFront,
) -> None:
    front = shared
    answers: list[int] = []

    def wait() -> None:
        answers.append(httpx.post(f"{front.url}/generate", json=BODY, timeout=60).status_code)

    caller = threading.Thread(target=wait)
    caller.start()
    eventually(lambda: accepted(front, 1), "a call waits")
    for path in (front.log.parent / "data/store/wake").glob("api-*"):
        path.unlink()  # no hint will ever arrive: the poll alone must do
    front.hand.finish(front.hand.lease())
    caller.join(60)
    assert answers == [200]
