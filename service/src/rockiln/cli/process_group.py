"""A few child processes that live and die together with this one."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

log = structlog.get_logger("rockiln.cli")

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WAITED_SIGNALS = (*_STOP_SIGNALS, signal.SIGCHLD)
_PR_SET_PDEATHSIG = 1
BACKOFF_FIRST_SECONDS = 0.5
BACKOFF_MAX_SECONDS = 30.0
# A process that lived this long starts its back-off anew.
HEALTHY_SECONDS = 60.0
STOP_SECONDS = 30.0
_LIBC = ctypes.CDLL(None, use_errno=True)


def next_backoff_seconds(before_seconds: float, lived_seconds: float) -> float:
    """The pause before a restart: doubled for each early death."""
    if lived_seconds >= HEALTHY_SECONDS or before_seconds == 0.0:
        return BACKOFF_FIRST_SECONDS
    return min(before_seconds * 2, BACKOFF_MAX_SECONDS)


@dataclass
class _Member:
    name: str
    command: list[str]
    process: subprocess.Popen[bytes] | None = None
    started_monotonic: float = 0.0
    start_at_monotonic: float = 0.0
    backoff_seconds: float = 0.0


class ProcessGroup:
    """Starts each command, restarts what dies, ends all on a stop signal.

    Args:
        commands: name → command line.
        environments: name → all its variables.
    """

    def __init__(
        self,
        commands: Mapping[str, list[str]],
        environments: Mapping[str, Mapping[str, str]],
    ) -> None:
        self._members = [_Member(name, command) for name, command in commands.items()]
        self._environments = environments

    def run(self, *, each_second: Callable[[], None]) -> None:
        """Returns when every process has ended after a stop signal."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_SIGNALS)
        try:
            stop_signal = None
            while stop_signal not in _STOP_SIGNALS:
                self._start_due()
                each_second()
                received = signal.sigtimedwait(_WAITED_SIGNALS, 1.0)
                stop_signal = received.si_signo if received is not None else None
                self._reap()
        finally:
            self._stop_all()
            # A second Ctrl-C has got what it wants: it may not kill this process now.
            while signal.sigtimedwait(_WAITED_SIGNALS, 0) is not None:
                pass
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _start_due(self) -> None:
        for member in self._members:
            now = time.monotonic()
            if member.process is None and now >= member.start_at_monotonic:
                # A group of its own: Ctrl-C reaches this process alone, which then stops in order.
                member.process = subprocess.Popen(
                    member.command,
                    env=self._environments[member.name],
                    stdin=subprocess.DEVNULL,
                    process_group=0,
                    preexec_fn=_tie_to(os.getpid()),  # noqa: PLW1509 (there are no threads here)
                )
                member.started_monotonic = now
                log.info("process.started", process=member.name, pid=member.process.pid)

    def _reap(self) -> None:
        for member in self._members:
            if member.process is None or member.process.poll() is None:
                continue
            now = time.monotonic()
            lived_seconds = now - member.started_monotonic
            member.backoff_seconds = next_backoff_seconds(member.backoff_seconds, lived_seconds)
            member.start_at_monotonic = now + member.backoff_seconds
            log.error(
                "process.died",
                process=member.name,
                status=member.process.returncode,
                restart_in_seconds=member.backoff_seconds,
            )
            member.process = None

    def _stop_all(self) -> None:
        """SIGTERM to all at once, then to each what is left of the time, then SIGKILL."""
        running = [(m.name, m.process) for m in self._members if m.process is not None]
        for _, process in running:
            process.terminate()
        deadline_monotonic = time.monotonic() + STOP_SECONDS
        for name, process in running:
            try:
                process.wait(max(0.0, deadline_monotonic - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("process.killed", process=name, after_seconds=STOP_SECONDS)
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _tie_to(parent_pid: int) -> Callable[[], None]:
    """For the child, before it runs its command: SIGTERM when the parent dies, even by SIGKILL."""

    def tie() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITED_SIGNALS)
        if os.getppid() != parent_pid:  # it died before the line above
            os._exit(1)

    return tie
