"""Answers that tell of a job as it goes on: a bounded number, written to by one thread.

A stream holds no request thread: its view hands the socket over. The thread reads the event log
once for all streams, on a wake-up or every 250 ms, and fans out; a stream asks the store itself
only for what it missed before it came, or while its client was slow. What waits to be sent to one
client is bounded: whoever is behind is read to from the log again.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog
from flask import Response

from rockiln.api.problems import ProblemError
from rockiln.domain.errors import JobNotCancellableError, UnknownJobError
from rockiln.store.records import Event
from rockiln.store.store import Store
from rockiln.store.wake import POLL_SECONDS, WakeReceiver

log = structlog.get_logger("rockiln.api")

STREAM_TYPE = "text/event-stream"
# More than this is not kept for one client; one event may go beyond it.
_BUFFER_BYTES = 1 << 16
_PAGE = 500
_HEARTBEAT = b": all is well\n\n"
# A client that takes nothing for this long is gone.
_STUCK_SECONDS = 30.0
# A client that comes back within this has not left its job.
RETURN_SECONDS = 5.0


class HandedOver(StopIteration):
    """The connection belongs to the streams now; for gunicorn nothing more comes of it."""


class Feed(Protocol):
    """What one client is told of one job, in its dialect. A feed belongs to one stream."""

    job_id: str

    def told(self, event: Event) -> bytes:
        """The event as it is sent; empty to say nothing."""
        ...

    def is_last(self, event: Event) -> bool:
        """Whether nothing comes after it."""
        ...


@dataclass(eq=False)
class _Stream:
    feed: Feed
    connection: socket.socket
    seq: int
    cancels: bool
    buffer: bytearray
    behind: bool = True
    ended: bool = False
    active_monotonic: float = field(default_factory=time.monotonic)

    def tell(self, event: Event) -> None:
        self.seq = event.seq
        self.buffer += self.feed.told(event)
        self.ended = self.feed.is_last(event)


class Streams:
    """All streams of this process.

    Args:
        slots: streams there may be at once.
        heartbeat_seconds: silence after which a comment is sent.
    """

    def __init__(self, store: Store, *, slots: int, heartbeat_seconds: float) -> None:
        self._store = store
        self._slots = slots
        self._heartbeat_seconds = heartbeat_seconds
        self._lock = threading.Lock()
        self._new: list[_Stream] = []
        self._streams: set[_Stream] = set()
        self._leaving: dict[str, float] = {}
        self._tail_seq = 0
        self._thread: threading.Thread | None = None
        self._wake_descriptor = -1
        self._stopping: Callable[[], bool] = lambda: False
        self._closed = False

    @property
    def open(self) -> int:
        """Streams there are now."""
        return len(self._streams) + len(self._new)

    def check_room(self) -> None:
        """Raises ProblemError when there are as many streams as may be."""
        if self.open >= self._slots:
            raise ProblemError(
                "too-many-streams", f"{self._slots} streams are open", limit={"max": self._slots}
            )

    def end_when(self, stopping: Callable[[], bool]) -> None:
        """Ends all streams once ``stopping`` says so; clients come back to the next process."""
        self._stopping = stopping

    def add(
        self, connection: socket.socket, head: bytes, feed: Feed, *, after: int, cancels: bool
    ) -> None:
        """Takes over a connection.

        Args:
            head: what is sent first.
            after: number of the last event that the client has.
            cancels: whether the job is to be cancelled when the client leaves.
        """
        connection.setblocking(False)
        stream = _Stream(feed, connection, after, cancels, bytearray(head))
        with self._lock:
            if not self._closed:
                self._new.append(stream)
                if self._thread is None:
                    self._wake_descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
                    self._thread = threading.Thread(target=self._run, name="streams", daemon=True)
                    self._thread.start()
                os.eventfd_write(self._wake_descriptor, 1)
                return
        connection.close()

    def so_far(self, feed: Feed, after: int) -> bytes:
        """What a stream would have been sent by now: for a server that hands no connection over."""
        told = bytearray()
        for event in self._missed(feed.job_id, after):
            told += feed.told(event)
            if feed.is_last(event):
                break
        return bytes(told)

    def close(self) -> None:
        """Ends the thread and all streams."""
        with self._lock:
            self._closed = True
            thread = self._thread
            if thread is not None:
                os.eventfd_write(self._wake_descriptor, 1)
        if thread is not None:
            thread.join()
            os.close(self._wake_descriptor)

    def _run(self) -> None:
        receiver = self._store.wake_receiver("api")
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_descriptor, selectors.EVENT_READ)
            selector.register(receiver.socket, selectors.EVENT_READ)
            while not self._ends():
                watched = self._streams or self._leaving or self._new
                ready = selector.select(POLL_SECONDS if watched else None)
                self._serve(selector, receiver, ready)
            for stream in (*self._streams, *self._new):
                stream.connection.close()
        receiver.close()

    def _ends(self) -> bool:
        with self._lock:
            return self._closed

    def _serve(
        self,
        selector: selectors.BaseSelector,
        receiver: WakeReceiver,
        ready: Iterable[tuple[selectors.SelectorKey, int]],
    ) -> None:
        receiver.drain()  # before the question: a hint that comes after it is kept for the next
        for key, _ in ready:
            if isinstance(key.data, _Stream) and _has_left(key.data.connection):
                self._drop(selector, key.data, left=True)
        try:
            self._take_new(selector)
            self._tail()
            for stream in self._streams:
                if stream.behind:
                    self._fill(stream)
            self._cancel_abandoned()
        except Exception:
            log.exception("streams.read_failed")
            time.sleep(POLL_SECONDS)
        stopping = self._stopping()
        for stream in tuple(self._streams):
            self._send(selector, stream)
            if stopping and stream in self._streams:
                self._drop(selector, stream, left=False)

    def _take_new(self, selector: selectors.BaseSelector) -> None:
        with self._lock:
            if not self._new:
                return
            with suppress(BlockingIOError):  # taken before, when the store did not answer
                os.eventfd_read(self._wake_descriptor)
            if not self._streams:  # what happened while nobody listened is read by who comes
                self._tail_seq = self._store.events.last_seq()
            taken, self._new = self._new, []
            self._streams.update(taken)
        for stream in taken:
            selector.register(stream.connection, selectors.EVENT_READ, stream)
            if stream.cancels:
                self._leaving.pop(stream.feed.job_id, None)

    def _tail(self) -> None:
        """Tells every stream that is not behind what is new, with one question for all."""
        if not self._streams:
            return
        listeners: defaultdict[str, list[_Stream]] = defaultdict(list)
        for stream in self._streams:
            if not stream.behind:
                listeners[stream.feed.job_id].append(stream)
        while True:
            page = self._store.events.after(None, self._tail_seq, _PAGE)
            for event in page:
                for stream in listeners.get(event.job_id, ()):
                    if event.seq > stream.seq and not stream.behind and not stream.ended:
                        stream.tell(event)
                        stream.behind = len(stream.buffer) > _BUFFER_BYTES
                self._tail_seq = event.seq
            if len(page) < _PAGE:
                return

    def _fill(self, stream: _Stream) -> None:
        """Reads to one that is behind, as much as may be kept for it."""
        for event in self._missed(stream.feed.job_id, stream.seq):
            if stream.ended or len(stream.buffer) > _BUFFER_BYTES:
                return
            stream.tell(event)
        # The log was read to its end after the tail was: whatever is newer, the tail will meet.
        stream.behind = False

    def _missed(self, job_id: str, seq: int) -> Iterable[Event]:
        while True:
            page = self._store.events.after(job_id, seq, _PAGE)
            yield from page
            if len(page) < _PAGE:
                return
            seq = page[-1].seq

    def _send(self, selector: selectors.BaseSelector, stream: _Stream) -> None:
        now = time.monotonic()
        if not stream.buffer and now - stream.active_monotonic >= self._heartbeat_seconds:
            stream.buffer += _HEARTBEAT
        if stream.buffer:
            try:
                sent = stream.connection.send(stream.buffer)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._drop(selector, stream, left=True)
                return
            del stream.buffer[:sent]
            if sent:
                stream.active_monotonic = now
            elif now - stream.active_monotonic > _STUCK_SECONDS:
                self._drop(selector, stream, left=True)
                return
        if stream.ended and not stream.buffer:
            self._drop(selector, stream, left=False)
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if stream.buffer else 0)
        selector.modify(stream.connection, events, stream)

    def _drop(self, selector: selectors.BaseSelector, stream: _Stream, *, left: bool) -> None:
        selector.unregister(stream.connection)
        stream.connection.close()
        self._streams.discard(stream)
        if left and stream.cancels and not stream.ended:
            self._leaving[stream.feed.job_id] = time.monotonic() + RETURN_SECONDS

    def _cancel_abandoned(self) -> None:
        now = time.monotonic()
        kept = {stream.feed.job_id for stream in self._streams if stream.cancels}
        for job_id in [job_id for job_id, due in self._leaving.items() if due <= now]:
            del self._leaving[job_id]
            if job_id not in kept:
                cancel_abandoned(self._store, job_id)


def cancel_abandoned(store: Store, job_id: str) -> None:
    """Cancels a job whose client left and wanted it so. One that has ended stays as it is."""
    try:
        store.cancel(job_id)
    except (JobNotCancellableError, UnknownJobError) as error:
        log.debug("job.not_cancelled", job_id=job_id, reason=str(error))
        return
    log.info("job.abandoned", job_id=job_id)


def _has_left(connection: socket.socket) -> bool:
    """Whether the client closed its side. What else it says is not listened to."""
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


class StreamResponse(Response):
    """An answer that goes on after its request: hands the connection over to ``streams``."""

    def __init__(self, streams: Streams, feed: Feed, *, after: int = 0, cancels: bool = False):
        streams.check_room()
        super().__init__(mimetype=STREAM_TYPE)
        self.headers["X-Accel-Buffering"] = "no"  # nginx passes each event on at once
        self._streams = streams
        self._feed = feed
        self._after = after
        self._cancels = cancels

    def __call__(self, environ: Any, start_response: Any) -> Any:
        connection = environ.get("gunicorn.socket")
        if connection is None or environ["REQUEST_METHOD"] == "HEAD":
            self.set_data(self._streams.so_far(self._feed, self._after))
            return super().__call__(environ, start_response)
        headers = self.get_wsgi_headers(environ)
        headers.remove("Content-Length")
        headers["Connection"] = "close"  # its end is the end of the answer
        lines = [f"HTTP/1.1 {self.status}", *(f"{name}: {value}" for name, value in headers)]
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        taken = socket.socket(fileno=connection.detach())
        self._streams.add(taken, head, self._feed, after=self._after, cancels=self._cancels)
        raise HandedOver
