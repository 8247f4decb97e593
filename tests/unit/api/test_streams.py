"""Streams of a job's events, from outside: a real gunicorn, and nginx as it is deployed."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from rockiln.api.job_feed import JobFeed
from rockiln.api.streams import _BUFFER_BYTES, RETURN_SECONDS, Streams
from rockiln.domain.fault import Fault, FaultCode
from rockiln.store.records import Job, Lease
from support.front import Front, ServedFront
from support.load import to_its_end
from support.service import eventually
from support.shield import Shield

pytestmark = pytest.mark.slow

STEPS = 6
SLOTS = 40
SSE = {"Accept": "text/event-stream"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedFront]:
    """For tests that leave no job behind."""
    with ServedFront(
        tmp_path_factory.mktemp("served"),
        api_threads=8,
        waiting_slots=2,
        stream_slots=SLOTS,
        stream_heartbeat_seconds=0.2,
    ) as front:
        yield front


class Told(dict[str, Any]):
    """One event: id, event, data."""


def parse(text: str) -> list[Told]:
    events = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] != ":")
        if fields:
            events.append(Told(fields, data=json.loads(fields["data"])))
    return events


def submit(front: ServedFront, **body: Any) -> str:
    answer = httpx.post(
        f"{front.url}/generate",
        json={"prompt": "a boat", "num_inference_steps": STEPS, **body},
        headers={"Prefer": "respond-async"},
    )
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def step(front: ServedFront | Front, leased: tuple[Lease, Job], *steps: int) -> None:
    for number in steps:
        front.store.jobs.record_step(leased[0], 0, number)


@contextmanager
def watching(url: str, job_id: str, **headers: str) -> Iterator[Iterator[Told]]:
    """Events as they come, until the server ends the stream."""

    def read(lines: Iterator[str]) -> Iterator[Told]:
        block = ""
        for line in lines:
            block += line + "\n"
            if not line:
                yield from parse(block)
                block = ""

    with httpx.stream("GET", f"{url}/jobs/{job_id}/events", headers=SSE | headers, timeout=30) as a:
        assert a.status_code == 200, a.read()
        assert a.headers["content-type"].startswith("text/event-stream")
        assert a.headers["cache-control"] == "no-store"
        yield read(a.iter_lines())


def test_a_stream_tells_all_there_was_and_all_that_comes_then_ends(served: ServedFront) -> None:
    front = served
    job_id = submit(front)
    leased = front.hand.lease()
    step(front, leased, 1, 2)
    with watching(front.url, job_id) as events:
        before = [next(events) for _ in range(4)]
        step(front, leased, 3)
        live = next(events)
        preview = front.store.artefacts.preview_path(job_id, 0)
        preview.parent.mkdir(parents=True)
        preview.write_bytes(b"a small jpeg")
        front.hand.tell_preview(leased, 0, 3)
        shown = next(events)
        step(front, leased, 4)
        front.hand.finish(leased)
        rest = list(events)
    assert [event["event"] for event in before] == ["accepted", "leased", "step", "step"]
    assert live["data"]["payload"] == {"index": 0, "step": 3, "steps": STEPS}
    assert live["data"]["eta_seconds"] >= 0
    assert shown["event"] == "preview"
    assert shown["data"]["preview"] == "YSBzbWFsbCBqcGVn"
    assert rest[-1]["event"] == "done"
    every = [*before, live, shown, *rest]
    log = httpx.get(f"{front.url}/jobs/{job_id}/events?limit=1000").json()["events"]
    assert [int(event["id"]) for event in every] == [line["seq"] for line in log]
    told = [{k: event["data"][k] for k in ("seq", "kind", "at", "payload")} for event in every]
    assert told == log
    with watching(front.url, job_id, **{"Last-Event-ID": live["id"]}) as again:
        assert [event["id"] for event in again] == [event["id"] for event in [shown, *rest]]
    over = httpx.get(
        f"{front.url}/jobs/{job_id}/events", headers=SSE | {"Last-Event-ID": rest[-1]["id"]}
    )
    assert over.status_code == 204  # what tells an EventSource not to come back


def test_faults_rungs_and_the_end_of_a_quarantined_job_are_told(served: ServedFront) -> None:
    front = served
    job_id = submit(front)
    with watching(front.url, job_id) as events:
        leased = front.hand.lease()
        front.store.jobs.end_attempt(
            leased[0], Fault(FaultCode.GPU_OOM, "no memory"), max_attempts=2
        )
        front.store.jobs.cancel(job_id)
        told = list(events)
    assert [event["event"] for event in told] == ["accepted", "leased", "retry_wait", "cancelled"]
    assert told[2]["data"]["payload"]["code"] == "gpu_oom"
    assert "rungs" in told[2]["data"]["payload"]


def test_streams_take_no_request_thread_and_are_capped(served: ServedFront) -> None:
    front = served
    job_id = submit(front)
    head = "HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
    raw = f"GET /jobs/{job_id}/events {head}"
    streams = [socket.create_connection(("127.0.0.1", front.port), 30) for _ in range(SLOTS)]
    for stream in streams:
        stream.sendall(raw.encode())
        assert stream.recv(15) == b"HTTP/1.1 200 OK"
    refused = httpx.get(f"{front.url}/jobs/{job_id}/events", headers=SSE)
    assert refused.status_code == 429
    assert refused.json()["code"] == "too_many_streams"
    assert int(refused.headers["Retry-After"]) > 0
    assert httpx.get(f"{front.url}/jobs/{job_id}").json()["state"] == "accepted"
    for stream in streams:
        stream.close()
    with eventually_watching(front, job_id) as events:
        front.hand.finish(front.hand.lease())
        assert [event["event"] for event in events][-1] == "done"


@contextmanager
def eventually_watching(front: ServedFront, job_id: str) -> Iterator[Iterator[Told]]:
    def room() -> bool:
        with httpx.stream("GET", f"{front.url}/jobs/{job_id}/events", headers=SSE) as answer:
            return answer.status_code == 200

    eventually(room, "a place is free again")
    with watching(front.url, job_id) as events:
        yield events


def test_a_silent_stream_is_kept_alive_by_comments(served: ServedFront) -> None:
    front = served
    job_id = submit(front)
    with httpx.stream("GET", f"{front.url}/jobs/{job_id}/events", headers=SSE) as answer:
        lines = answer.iter_lines()
        comments = [line for line in (next(lines) for _ in range(12)) if line.startswith(":")]
    assert len(comments) >= 2
    front.store.jobs.cancel(job_id)


def test_a_job_is_cancelled_when_its_watcher_asked_and_stays_away(served: ServedFront) -> None:
    front = served
    kept, dropped = submit(front), submit(front)
    for job_id, asks in ((kept, {}), (dropped, {"Prefer": "cancel-on-disconnect"})):
        with watching(front.url, job_id, **asks) as events:
            next(events)
    # Whoever comes back in time has not left.
    with watching(front.url, dropped, Prefer="cancel-on-disconnect") as events:
        with httpx.stream(
            "GET", f"{front.url}/jobs/{dropped}/events?cancel_on_disconnect=true", headers=SSE
        ) as other:
            next(other.iter_lines())
        next(events)
        begun = time.monotonic()
        eventually(lambda: time.monotonic() - begun > RETURN_SECONDS + 0.5, "the time is over")
        assert front.store.jobs.get(dropped).state == "accepted"
    eventually(lambda: front.store.jobs.get(dropped).state == "cancelled", "it is cancelled")
    assert front.store.jobs.get(kept).state == "accepted"
    foreign = httpx.get(
        f"{front.url}/jobs/{kept}/events?cancel_on_disconnect=1",
        headers=SSE | {"Sec-Fetch-Site": "cross-site"},
    )
    assert foreign.status_code == 403
    front.store.jobs.cancel(kept)


def test_a_waiting_call_that_asked_is_cancelled_when_its_client_leaves(served: ServedFront) -> None:
    front = served
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{front.url}/generate",
            json={"prompt": "a boat"},
            headers={"Prefer": "cancel-on-disconnect"},
            timeout=httpx.Timeout(30, read=0.5),
        )
    (job,) = front.store.jobs.page(limit=1)
    eventually(lambda: front.store.jobs.get(job.id).state == "cancelled", "it is cancelled")


@pytest.mark.parametrize("header", ["x", "-1", "1" * 25])
def test_a_bad_last_event_id_is_refused(front: Front, header: str) -> None:
    job_id = front.submit()
    answer = front.client.get(f"/jobs/{job_id}/events", headers=SSE | {"Last-Event-ID": header})
    assert answer.status_code == 400
    assert answer.get_json()["errors"][0]["field"] == "Last-Event-ID"


def test_a_client_that_reads_slowly_gets_all_and_takes_little_memory(front: Front) -> None:
    job_id = front.submit(num_inference_steps=150)
    leased = front.hand.lease()
    for _ in range(3):
        step(front, leased, *range(1, 151))
    log = front.store.events.after(None, 0, 10_000)
    ours, theirs = socket.socketpair()
    theirs.settimeout(30)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    streams = Streams(front.store, slots=1, heartbeat_seconds=60)
    feed = JobFeed(front.store.jobs.get(job_id), front.store.artefacts)
    streams.add(ours, b"", feed, after=0, cancels=False)
    eventually(lambda: streams.open == 1 and buffered(streams) > 0, "it waits for its client")
    front.hand.finish(leased)
    assert buffered(streams) < 2 * _BUFFER_BYTES
    received = bytearray()
    while part := theirs.recv(2048):
        received += part
        assert buffered(streams) < 2 * _BUFFER_BYTES
    seqs = [int(event["id"]) for event in parse(received.decode())]
    assert seqs == [event.seq for event in front.store.events.after(None, 0, 10_000)]
    assert len(seqs) > len(log)
    streams.close()
    theirs.close()


def buffered(streams: Streams) -> int:
    return sum(len(stream.buffer) for stream in tuple(streams._streams))


STREAMS = 500
JOBS = 5


def test_500_streams_lose_and_double_nothing_over_restarts_of_proxy_and_api(
    tmp_path: Path,
) -> None:
    with ServedFront(tmp_path) as front, Shield(tmp_path, front.port) as shield:
        jobs = [submit(front, num_inference_steps=100) for _ in range(JOBS)]
        leases = {lease.job_id: (lease, job) for lease, job in (front.hand.lease() for _ in jobs)}

        def play(first: int, last: int) -> None:
            for number in range(first, last):
                for leased in leases.values():
                    step(front, leased, number)

        async def run() -> list[list[int]]:
            connected = asyncio.Semaphore(0)
            clients = [
                asyncio.create_task(follow(shield.port, jobs[number % JOBS], connected))
                for number in range(STREAMS)
            ]
            for _ in clients:
                await connected.acquire()
            await asyncio.to_thread(play, 1, 20)
            await asyncio.to_thread(front.stop)
            await asyncio.to_thread(play, 20, 30)  # while nobody can hear it
            await asyncio.to_thread(front.__enter__)
            await asyncio.to_thread(play, 30, 40)
            await asyncio.to_thread(shield.__exit__)
            await asyncio.to_thread(play, 40, 50)
            await asyncio.to_thread(shield.__enter__)
            await asyncio.to_thread(play, 50, 60)
            for leased in leases.values():
                await asyncio.to_thread(front.hand.finish, leased)
            return await asyncio.gather(*clients)

        received = to_its_end(run())
        logs = {
            job_id: [event.seq for event in front.store.events.after(job_id, 0, 1000)]
            for job_id in jobs
        }
        assert "Traceback" not in front.log.read_text()
    for number, seqs in enumerate(received):
        assert seqs == logs[jobs[number % JOBS]]


async def follow(port: int, job_id: str, connected: asyncio.Semaphore) -> list[int]:
    """As an EventSource does: comes back with the last id until the job's end was told."""
    seqs: list[int] = []
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            last = f"Last-Event-ID: {seqs[-1]}\r\n" if seqs else ""
            writer.write(
                f"GET /jobs/{job_id}/events HTTP/1.1\r\nHost: localhost\r\n"
                f"Accept: text/event-stream\r\n{last}\r\n".encode()
            )
            while line := await reader.readline():
                if line.startswith(b"id: "):
                    number = int(line[4:])
                elif line == b"event: done\n":
                    writer.close()
                    return [*seqs, number]
                elif line.startswith(b"data: ") and line.endswith(b"\n"):
                    if not seqs:
                        connected.release()
                    seqs.append(number)
            writer.close()
        except OSError:
            pass
        await asyncio.sleep(0.2)
