"""Has one engine make jobs and outlives its deaths.

One loop, no threads. Signal handlers only queue; the loop acts. What the engine reports is in the
store before the next line is read, so a death costs only the work since the last durable point.
"""

from __future__ import annotations

import fcntl
import gc
import selectors
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import IO

import structlog

from rockiln.domain.fault import Fault, FaultCode
from rockiln.settings import Settings
from rockiln.store.records import Worker, WorkerState
from rockiln.store.store import Store
from rockiln.store.wake import POLL_SECONDS
from rockiln.worker import gate, protocol
from rockiln.worker.classify import Death
from rockiln.worker.desk import Desk
from rockiln.worker.engine_host import EngineHost
from rockiln.worker.stop_signals import StopSignals

log = structlog.get_logger()

HEARTBEAT_SECONDS = 1.0
UPKEEP_SECONDS = 60.0
# A clock that runs out is seen within this.
_TICK_SECONDS = POLL_SECONDS
EXIT_LOCKED = 3


class Supervisor:
    """One worker slot: one engine, one job at a time.

    Args:
        monotonic: clock of the deadlines, seconds.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._store = store
        self._monotonic = monotonic
        self._selector = selectors.DefaultSelector()
        self._wake = store.wake_receiver("worker")
        self._engine = EngineHost(
            settings,
            self._selector,
            on_progress=self._progress,
            on_ready=self._proven,
            on_death=self._engine_died,
            monotonic=monotonic,
        )
        self._desk = Desk(settings, store, self._engine, monotonic=monotonic)
        self._heartbeat_at_monotonic = 0.0
        self._upkeep_at_monotonic = 0.0
        self._stop_by_monotonic: float | None = None

    def run(self) -> int:
        """Works until SIGTERM or SIGINT; returns the exit status."""
        self._end_stale_attempts(
            Fault(FaultCode.LEASE_EXPIRED, "the worker died in the middle of the attempt"),
            worker=self._settings.worker_name,
        )
        self._selector.register(self._wake.socket, selectors.EVENT_READ, self._woken)
        with StopSignals(self._selector, self._stop):
            while not self._drained():
                self._engine.look_after()
                self._desk.watch_clocks()
                if self._wants_work:  # before the heartbeat: a caller waits
                    self._desk.lease_next()
                self._heartbeat()
                wait = min(_TICK_SECONDS, self._engine.due_in(self._monotonic()))
                for key, _ in self._selector.select(wait):
                    key.data()
        self._leave()
        return 0

    @property
    def _wants_work(self) -> bool:
        stopping = self._stop_by_monotonic is not None
        return self._engine.free and self._desk.attempt is None and not stopping

    def _stop(self) -> None:
        """The first signal drains, the second one does not wait."""
        drain = self._settings.drain_seconds if self._stop_by_monotonic is None else 0.0
        self._stop_by_monotonic = self._monotonic() + drain

    def _drained(self) -> bool:
        if self._stop_by_monotonic is None:
            return False
        left_seconds = self._stop_by_monotonic - self._monotonic()
        self._desk.drain(left_seconds)
        return self._desk.attempt is None or left_seconds <= 0

    def _woken(self) -> None:
        self._wake.drain()
        self._desk.renew_lease()  # sees a cancel
        if self._engine.wedged:
            self._heartbeat_at_monotonic = 0.0  # sees a wish for a proof

    def _leave(self) -> None:
        self._engine.close()
        self._desk.give_back()
        self._report(WorkerState.STOPPED, "stopped")
        self._wake.close()

    def _progress(self, event: protocol.Progress) -> None:
        self._desk.progress(event)

    def _proven(self) -> None:
        self._desk.proof_at = time.time()
        self._desk.engine_ready()
        self._report_now()

    def _engine_died(self, death: Death) -> Fault:
        fault = self._desk.engine_died(death)
        self._report_now()
        return fault

    # What the worker says of itself

    def _heartbeat(self) -> None:
        now = self._monotonic()
        if now < self._heartbeat_at_monotonic:
            return
        self._heartbeat_at_monotonic = now + HEARTBEAT_SECONDS
        if self._engine.wedged and self._store.workers.take_proof_request(
            self._settings.worker_name
        ):
            self._engine.prove_now()
        self._report_now()
        self._desk.renew_lease()  # before stale ones are ended: a clock that jumped spares ours
        self._end_stale_attempts(
            Fault(FaultCode.LEASE_EXPIRED, "the worker that had the job stopped answering")
        )
        self._store.jobs.fail_overdue(self._settings.job_deadline_seconds)
        if now >= self._upkeep_at_monotonic:
            self._upkeep_at_monotonic = now + UPKEEP_SECONDS
            self._tidy_up()

    def _tidy_up(self) -> None:
        try:
            self._store.upkeep.run()
        except OSError as error:  # a disk that takes no change takes none in a minute either
            log.error("upkeep.failed", error=str(error))

    def _end_stale_attempts(self, fault: Fault, *, worker: str | None = None) -> None:
        for job in self._store.jobs.end_stale_attempts(
            fault, max_attempts=self._settings.max_attempts, worker=worker
        ):
            log.warning("attempt.failed", job_id=job.id, code=fault.code, state=job.state)
            if job.ended:
                self._store.artefacts.drop_latents(job.id)

    def _report_now(self) -> None:
        wedged = self._engine.wedged
        if wedged:
            state = WorkerState.WEDGED
        elif self._engine.ready is not None:
            state = WorkerState.READY if self._desk.attempt is None else WorkerState.BUSY
        else:
            state = WorkerState.FAILED if self._engine.trouble else WorkerState.STARTING
        self._report(state, wedged or self._engine.trouble)

    def _report(self, state: WorkerState, detail: str) -> None:
        ready, attempt, fault = self._engine.ready, self._desk.attempt, self._desk.last_fault
        now = self._monotonic()
        self._store.workers.report(
            Worker(
                name=self._settings.worker_name,
                state=state,
                detail=detail,
                device=asdict(ready.device) if ready else None,
                versions=ready.versions if ready else None,
                heartbeat_at=time.time(),
                proof_at=self._desk.proof_at,
                health={
                    "restarts": self._engine.budget.as_dict(now),
                    "attempt": None if attempt is None else attempt.as_dict(now),
                    "last_fault": None
                    if fault is None
                    else {"code": fault.code, "stage": fault.stage, "detail": fault.detail},
                    "kernel_log_unreadable": self._engine.kernel_log_unreadable,
                    "models": [
                        {
                            "id": model.id,
                            "pinned": model.pinned,
                            "placement": model.plan.placement,
                            "device_bytes": model.device_bytes,
                            "host_bytes": model.host_bytes,
                        }
                        for model in self._engine.models
                    ],
                },
            )
        )


def run(settings: Settings) -> int:
    """The worker process. Returns the exit status: 0 stopped, 3 name taken, 4 misaligned."""
    store = Store(settings)
    store.prepare()
    with (settings.store_dir / f"worker-{settings.worker_name}.lock").open("w") as lock:
        if not _locked(lock):
            log.error("worker.refused", reason=f"{settings.worker_name} runs already")
            return EXIT_LOCKED
        try:
            if gate.refuses(settings, store):
                return gate.EXIT_MISALIGNED
            gc.freeze()  # what is imported stays: no collection has to look at it again
            return Supervisor(settings, store).run()
        finally:
            store.close()


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
