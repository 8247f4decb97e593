"""``rockiln fetcher``: takes tasks from the store and gives each a child of its own."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import IO

import structlog

from rockiln.fetcher.download import Place, sweep
from rockiln.fetcher.token import read_token
from rockiln.settings import Settings
from rockiln.store.artefacts import make_folder
from rockiln.store.model_tasks import ModelTask
from rockiln.store.store import Store

log = structlog.get_logger()

_POLL_SECONDS = 0.5
_SIGN_SECONDS = 5.0
_LOCK_NAME = "fetcher.lock"
_DEATHS_ALLOWED = 3
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_WAITED_SIGNALS = (*_STOP_SIGNALS, signal.SIGCHLD)


class AnotherFetcherError(Exception):
    """One fetcher for one models folder."""


@dataclass
class Fetcher:
    """Runs until it is told to stop.

    Attributes:
        children: task → process.
    """

    settings: Settings
    store: Store
    children: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def run(self) -> None:
        """Raises AnotherFetcherError, OSError."""
        place = Place(self.settings.own_models_dir)
        make_folder(place.downloads)
        with _take_alone(place):
            sweep(place)
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_SIGNALS)
            try:
                self._loop()
            finally:
                self._stop_children()
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _loop(self) -> None:
        sign_due = 0.0
        while True:
            if time.monotonic() >= sign_due:
                self.store.model_tasks.sign(
                    has_token=read_token(self.settings) is not None,
                    endpoint=self.settings.hub_endpoint,
                )
                sign_due = time.monotonic() + _SIGN_SECONDS
            self._reap()
            self._start_children()
            received = signal.sigtimedwait(_WAITED_SIGNALS, _POLL_SECONDS)
            if received is not None and received.si_signo in _STOP_SIGNALS:
                return

    def _start_children(self) -> None:
        for task in self.store.model_tasks.open_tasks():
            if len(self.children) >= self.settings.fetcher_downloads:
                return
            if task.seq not in self.children:
                self._start(task)

    def _start(self, task: ModelTask) -> None:
        self.children[task.seq] = subprocess.Popen(
            [sys.executable, "-m", "rockiln.fetcher.child", str(task.seq), str(os.getpid())],
            env=self.settings.as_environment(),
            stdin=subprocess.DEVNULL,
            process_group=0,
        )
        log.info("model_task.started", model=task.model_id, kind=task.kind, task=task.seq)

    def _reap(self) -> None:
        for seq, child in list(self.children.items()):
            status = child.poll()
            if status is None:
                continue
            del self.children[seq]
            if status == 0:
                continue
            deaths = self.store.model_tasks.note_death(seq)
            log.warning("model_task.child_died", task=seq, status=status, deaths=deaths)
            if deaths >= _DEATHS_ALLOWED:
                self.store.model_tasks.end(
                    seq,
                    "failed",
                    f"its process died {deaths} times without a byte between (status {status}); "
                    "the fetcher's log has more",
                    reason="failed",
                )

    def _stop_children(self) -> None:
        """What they have written stays; the next fetcher goes on from there."""
        for child in self.children.values():
            child.terminate()
        for child in self.children.values():
            child.wait()


def _take_alone(place: Place) -> IO[str]:
    lock = (place.downloads / _LOCK_NAME).open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise AnotherFetcherError(f"another fetcher works for {place.models}") from error
    return lock
