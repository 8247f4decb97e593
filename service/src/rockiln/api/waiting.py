"""Calls that wait for a job: a bounded number, watched together by one thread.

The thread asks the store once for all watched jobs, on a wake-up or every 250 ms; waiting calls
never poll one by one. It starts with the first waiter, so always after a fork.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from rockiln.store.store import Store
from rockiln.store.wake import POLL_SECONDS, WakeReceiver

log = structlog.get_logger("rockiln.api")


class WaitingRoom:
    """Where calls wait.

    Args:
        slots: calls that may wait at once; the others are told to poll.
    """

    def __init__(self, store: Store, *, slots: int) -> None:
        self._store = store
        self._free_slots = slots
        self._changed = threading.Condition()
        self._watched: dict[str, list[threading.Event]] = {}
        self._watcher: threading.Thread | None = None
        self._stopping: Callable[[], bool] = lambda: False
        self._closed = False

    def release_when(self, stopping: Callable[[], bool]) -> None:
        """Lets everybody go, unfinished, once ``stopping`` says so: the process is to end."""
        self._stopping = stopping

    @contextmanager
    def slot(self) -> Iterator[bool]:
        """Whether there is room to wait; the place is taken for the block."""
        with self._changed:
            taken = self._free_slots > 0
            self._free_slots -= taken
        try:
            yield taken
        finally:
            with self._changed:
                self._free_slots += taken

    def wait(self, job_id: str, seconds: float) -> None:
        """Returns when the job has ended, the time is over, or the process is to end."""
        ended = threading.Event()
        with self._changed:
            if self._closed:
                return
            self._watched.setdefault(job_id, []).append(ended)
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, name="watcher", daemon=True)
                self._watcher.start()
            self._changed.notify_all()
        try:
            ended.wait(seconds)
        finally:
            with self._changed:
                waiters = self._watched.get(job_id, [])
                if ended in waiters:
                    waiters.remove(ended)
                if not waiters:
                    self._watched.pop(job_id, None)

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
        poller = select.poll()
        poller.register(receiver.socket, select.POLLIN)
        while not self._closed:
            with self._changed:
                while not self._watched and not self._closed:
                    self._changed.wait()
                job_ids = list(self._watched)
            self._release(job_ids if self._stopping() else self._ended(job_ids, receiver))
            if not self._closed:
                poller.poll(POLL_SECONDS * 1000)
        self._release(list(self._watched))
        receiver.close()

    def _ended(self, job_ids: list[str], receiver: WakeReceiver) -> set[str]:
        receiver.drain()  # before the question: a hint that comes after it is kept for the next
        try:
            return self._store.jobs.ended_among(job_ids)
        except Exception:
            log.exception("waiters.check_failed")
            time.sleep(POLL_SECONDS)
            return set()

    def _release(self, job_ids: set[str] | list[str]) -> None:
        with self._changed:
            for job_id in job_ids:
                for ended in self._watched.pop(job_id, []):
                    ended.set()
