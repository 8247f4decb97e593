"""Calls that wait for a job: a bounded number, watched together by one thread.

The thread asks the store once for all watched jobs, on a wake-up or every 250 ms; waiting calls
never poll one by one. The same poll holds the clients' sockets: one who leaves frees its place. It
starts with the first waiter, so always after a fork.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import structlog

from rockiln.store.records import Job
from rockiln.store.store import Store
from rockiln.store.wake import POLL_SECONDS, WakeReceiver

log = structlog.get_logger("rockiln.api")

# The peer has closed its side. nginx, too, takes a half-closed connection for one that was left.
_LEFT = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class Client(Protocol):
    """The socket of a call."""

    def fileno(self) -> int: ...


@dataclass(frozen=True)
class Awaited:
    """How a wait ended.

    Attributes:
        job: as it ended; None if it did not, or is gone since.
        client_left: nobody will read the answer.
    """

    job: Job | None = None
    client_left: bool = False


class _Waiter:
    """One call. ``job``: as it ended; ``left``: its client has gone."""

    def __init__(self, job_id: str, client: Client | None) -> None:
        self.job_id = job_id
        self.descriptor = -1 if client is None else client.fileno()
        self.released = threading.Event()
        self.job: Job | None = None
        self.left = False


class WaitingRoom:
    """Where calls wait.

    Args:
        slots: calls that may wait at once; the others are told to poll.
    """

    def __init__(self, store: Store, *, slots: int) -> None:
        self._store = store
        self._slots = slots
        self._taken = 0
        self._changed = threading.Condition()
        self._waiters: set[_Waiter] = set()
        self._watcher: threading.Thread | None = None
        self._stopping: Callable[[], bool] = lambda: False
        self._closed = False

    @property
    def taken(self) -> int:
        """Places that are taken now."""
        return self._taken

    def release_when(self, stopping: Callable[[], bool]) -> None:
        """Lets everybody go, unfinished, once ``stopping`` says so: the process is to end."""
        self._stopping = stopping

    @contextmanager
    def slot(self) -> Iterator[bool]:
        """Whether there is room to wait; the place is taken for the block."""
        with self._changed:
            taken = self._taken < self._slots
            self._taken += taken
        try:
            yield taken
        finally:
            with self._changed:
                self._taken -= taken

    def wait(self, job_id: str, seconds: float, client: Client | None = None) -> Awaited:
        """Returns when the job has ended, the time is over, or the process is to end.

        Also when the client left.
        """
        waiter = _Waiter(job_id, client)
        with self._changed:
            if self._closed:
                return Awaited()
            self._waiters.add(waiter)
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, name="watcher", daemon=True)
                self._watcher.start()
            self._changed.notify_all()
        try:
            waiter.released.wait(seconds)
        finally:
            with self._changed:
                self._waiters.discard(waiter)
        return Awaited(waiter.job, waiter.left)

    def close(self) -> None:
        """Ends the thread; whoever waits is let go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            watcher = self._watcher
        if watcher is not None:
            self._store.wake("api")  # it may be in its poll
            watcher.join()

    def _watch(self) -> None:
        receiver = self._store.wake_receiver("api")
        while not self._closed:
            with self._changed:
                while not self._waiters and not self._closed:
                    self._changed.wait()
                waiters = tuple(self._waiters)
            self._release(waiters if self._stopping() else self._ended(waiters, receiver))
            if not self._closed:
                self._dismiss(_poll(waiters, receiver))
        self._release(tuple(self._waiters))
        receiver.close()

    def _ended(self, waiters: Collection[_Waiter], receiver: WakeReceiver) -> list[_Waiter]:
        receiver.drain()  # before the question: a hint that comes after it is kept for the next
        try:
            ended = self._store.jobs.ended_among(list({waiter.job_id for waiter in waiters}))
        except Exception:
            log.exception("waiters.check_failed")
            time.sleep(POLL_SECONDS)
            return []
        concerned = [waiter for waiter in waiters if waiter.job_id in ended]
        for waiter in concerned:
            waiter.job = ended[waiter.job_id]
        return concerned

    def _release(self, waiters: Collection[_Waiter]) -> None:
        with self._changed:
            self._waiters.difference_update(waiters)
        for waiter in waiters:
            waiter.released.set()

    def _dismiss(self, waiters: Collection[_Waiter]) -> None:
        """Lets go whose client left, unless they went by themselves: the number may be reused."""
        with self._changed:
            present = self._waiters.intersection(waiters)
            for waiter in present:
                waiter.left = True
        self._release(present)


def _poll(waiters: Collection[_Waiter], receiver: WakeReceiver) -> list[_Waiter]:
    """Waits for a hint, or until the next look is due; returns whose client left."""
    poller = select.poll()
    poller.register(receiver.socket, select.POLLIN)
    by_descriptor = {waiter.descriptor: waiter for waiter in waiters if waiter.descriptor >= 0}
    for descriptor in by_descriptor:
        poller.register(descriptor, _LEFT)
    events = poller.poll(POLL_SECONDS * 1000)
    return [by_descriptor[descriptor] for descriptor, _ in events if descriptor in by_descriptor]
