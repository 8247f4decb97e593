"""Clients in numbers: a storm that takes no hints, clients that obey, and slow ones.

Plain sockets under one event loop: what is measured is the service, not a client library. The
prober runs as a process of its own (``python -m support.load PORT STOP_FILE``), so that a busy
generator does not stretch its times.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

HOST = "127.0.0.1"
ANSWER_SECONDS = 60.0
_PROBE_PAUSE_SECONDS = 0.02


def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Runs ``work`` on a thread: the browser tests leave a loop running on the main one."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(asyncio.run, work).result()


@dataclass(frozen=True)
class Answer:
    """Attributes: ``status`` is 0 where the connection broke, with the error as body."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def retry_after_seconds(self) -> float:
        return float(self.headers.get("retry-after", "0"))


def request(
    method: str, path: str, *, body: dict[str, object] | None = None, prefer: str = ""
) -> bytes:
    """A request that ends its connection."""
    data = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close"]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
    if prefer:
        lines.append(f"Prefer: {prefer}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


async def call(port: int, raw: bytes) -> Answer:
    """Sends ``raw`` and reads to the end."""
    started = time.perf_counter()
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(raw)
                await writer.drain()
                answer = await reader.read()
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        return Answer(0, {}, repr(error).encode(), time.perf_counter() - started)
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
    code = int(status.split()[1]) if status.startswith("HTTP/") else 0
    return Answer(code, headers, body, time.perf_counter() - started)


@dataclass
class Storm:
    """What a storm brought home."""

    answers: list[Answer] = field(default_factory=list)

    @property
    def statuses(self) -> Counter[int]:
        return Counter(answer.status for answer in self.answers)

    def of(self, status: int) -> list[Answer]:
        return [answer for answer in self.answers if answer.status == status]


async def storm(port: int, *, calls_per_second: float, seconds: float) -> Storm:
    """Calls at a steady rate whatever the answers are; every second one waits for its picture."""
    result = Storm()
    started = time.monotonic()

    async def one(number: int) -> None:
        await asyncio.sleep(max(0.0, started + number / calls_per_second - time.monotonic()))
        prefer = "respond-async" if number % 2 else ""
        body: dict[str, object] = {"prompt": f"storm {number}", "seed": number}
        answer = await call(port, request("POST", "/generate", body=body, prefer=prefer))
        result.answers.append(answer)

    async with asyncio.TaskGroup() as tasks:
        for number in range(round(calls_per_second * seconds)):
            tasks.create_task(one(number))
    return result


async def obedient(port: int, *, clients: int, tries: int) -> list[list[Answer]]:
    """Clients that come at once and, when told to wait, wait as long as they are told."""

    async def one(number: int) -> list[Answer]:
        answers: list[Answer] = []
        raw = request(
            "POST", "/generate", body={"prompt": f"polite {number}"}, prefer="respond-async"
        )
        while len(answers) < tries:
            answers.append(await call(port, raw))
            if answers[-1].status not in {429, 503}:
                break
            await asyncio.sleep(answers[-1].retry_after_seconds)
        return answers

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(number)) for number in range(clients)]
    return [task.result() for task in tasks]


async def _trickle(port: int, start: bytes, pause_seconds: float) -> None:
    """Sends ``start``, then a byte now and then, until it is thrown out."""
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            writer.write(start)
            while not reader.at_eof() and not writer.is_closing():
                await asyncio.sleep(pause_seconds)
                writer.write(b"a")
                await writer.drain()
        finally:
            writer.close()
    except OSError:
        return


async def _sip(port: int, raw: bytes, pause_seconds: float) -> None:
    """Reads an answer a byte at a time."""
    try:
        narrow = socket.socket()
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        narrow.setblocking(False)
        await asyncio.get_running_loop().sock_connect(narrow, (HOST, port))
        reader, writer = await asyncio.open_connection(sock=narrow, limit=1)
        try:
            writer.write(raw)
            while await reader.read(1):
                await asyncio.sleep(pause_seconds)
        finally:
            writer.close()
    except OSError:
        return


@dataclass
class SlowClients:
    """How many there are of each kind."""

    headers: int
    bodies: int
    readers: int
    read_path: str = "/openapi.json"
    pause_seconds: float = 1.0

    async def besiege(self, port: int) -> None:
        """Until cancelled: whoever is thrown out comes again."""

        async def again(kind: str) -> None:
            while True:
                if kind == "reader":
                    await _sip(port, request("GET", self.read_path), self.pause_seconds)
                elif kind == "header":
                    await _trickle(port, b"GET /livez HTTP/1.1\r\nX-Slow: ", self.pause_seconds)
                else:
                    head = request("POST", "/generate", body={})
                    start = head.replace(b"Content-Length: 2", b"Content-Length: 9000")
                    await _trickle(port, start, self.pause_seconds)
                await asyncio.sleep(0.05)

        kinds = ["header"] * self.headers + ["body"] * self.bodies + ["reader"] * self.readers
        async with asyncio.TaskGroup() as tasks:
            for kind in kinds:
                tasks.create_task(again(kind))


@dataclass
class Probes:
    """Milliseconds of each answered ``GET /livez``, and how many were not answered with 200."""

    milliseconds: list[float] = field(default_factory=list)
    failed: int = 0

    @property
    def p99(self) -> float:
        ordered = sorted(self.milliseconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]

    def told(self) -> str:
        ordered = sorted(self.milliseconds)
        return (
            f"/livez: {len(ordered)} calls, p50 {ordered[len(ordered) // 2]:.1f} ms, "
            f"p99 {self.p99:.1f} ms, max {ordered[-1]:.1f} ms, {self.failed} failed"
        )


@contextmanager
def probing(port: int, folder: Path) -> Iterator[Probes]:
    """Asks ``/livez`` all through the block; the result is filled in at its end."""
    stop = folder / "stop-probing"
    stop.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "support.load", str(port), str(stop)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[1],
    )
    probes = Probes()
    try:
        yield probes
    finally:
        stop.touch()
        told, _ = process.communicate(timeout=ANSWER_SECONDS)
    found = json.loads(told)
    probes.milliseconds, probes.failed = found["milliseconds"], found["failed"]


async def _probe(port: int, stop: Path) -> Probes:
    found = Probes()
    while not stop.exists() or not found.milliseconds:
        answer = await call(port, request("GET", "/livez"))
        found.milliseconds.append(answer.seconds * 1e3)
        found.failed += answer.status != 200
        await asyncio.sleep(_PROBE_PAUSE_SECONDS)
    return found


def main(port: int, stop: Path) -> None:
    """The prober's process."""
    found = asyncio.run(_probe(port, stop))
    sys.stdout.write(json.dumps({"milliseconds": found.milliseconds, "failed": found.failed}))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
