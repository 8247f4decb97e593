"""A job's events as they happen, read by a thread: the command itself stays interruptible."""

from __future__ import annotations

import http.client
import json
import queue
import threading
from collections.abc import Iterator

from rockiln.cli.calls import Document
from rockiln.cli.client import Client, UnreachableError

# How long nothing may be told before the job itself is looked at: with a stream, and without.
_LOOK_SECONDS = 2.0
_POLL_SECONDS = 0.3
_RETURN_SECONDS = 1.0


class EventStream:
    """Tells what happens to one job. Where no stream can be had it only paces those who ask."""

    def __init__(self, url: str, job: Document) -> None:
        self._client = Client(url)
        self._path = f"{job['href']}/events"
        self._last_id = ""
        self._events: queue.SimpleQueue[Document] = queue.SimpleQueue()
        self._open = False
        self._closing = threading.Event()
        threading.Thread(target=self._run, name="events", daemon=True).start()

    def wait(self) -> list[Document]:
        """What was told since the last call, oldest first; empty when it is time to look."""
        try:
            told = [self._events.get(timeout=_LOOK_SECONDS if self._open else _POLL_SECONDS)]
            while not self._events.empty():
                told.append(self._events.get())
        except queue.Empty:
            return []
        return told

    def close(self) -> None:
        """Ends the thread."""
        self._closing.set()
        self._client.abort()

    def _run(self) -> None:
        while not self._closing.is_set():
            headers = {"Accept": "text/event-stream"}
            if self._last_id:
                headers["Last-Event-ID"] = self._last_id
            try:
                answer = self._client.open(self._path, headers)
                if answer.status != http.HTTPStatus.OK:
                    return  # all is told, or there is no room: looking has to do
                self._open = True
                for event in self._read(answer):
                    self._events.put(event)
            # However it broke: the job goes on, looking does for now, and what was missed comes.
            except (UnreachableError, OSError, http.client.HTTPException, ValueError):
                pass
            self._open = False
            self._closing.wait(_RETURN_SECONDS)

    def _read(self, answer: http.client.HTTPResponse) -> Iterator[Document]:
        data = b""
        while line := answer.readline():
            name, _, value = line.rstrip(b"\r\n").partition(b": ")
            if name == b"id":
                self._last_id = value.decode("ascii")
            elif name == b"data":
                data = value
            elif not name and data:
                yield json.loads(data)
                data = b""
