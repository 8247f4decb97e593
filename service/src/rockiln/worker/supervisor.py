"""Leases jobs, has the engine make them, records what it does and outlives its deaths.

One loop, no threads. Signal handlers only queue; the loop acts. What the engine reports is in the
store before the next line is read, so a death costs only the work since the last durable point.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import IO

import structlog

from rockiln.domain.errors import LeaseLostError
from rockiln.domain.fault import Fault, FaultCode
from rockiln.domain.job import JobState
from rockiln.domain.plan import plan
from rockiln.settings import Settings
from rockiln.store.records import Job, Lease, Picture, Worker, WorkerState
from rockiln.store.store import Store
from rockiln.store.wake import POLL_SECONDS
from rockiln.worker import protocol
from rockiln.worker.engine_host import EngineHost

log = structlog.get_logger()

HEARTBEAT_SECONDS = 1.0
STEP_RECORD_SECONDS = 0.2
EXIT_LOCKED = 3


@dataclass
class _Attempt:
    """The job in hand. ``lost``: another attempt owns it now; the engine is being told."""

    lease: Lease
    job: Job
    deadline_monotonic: float
    stage: str = "start"
    step_recorded_monotonic: float = 0.0
    cancel_deadline_monotonic: float | None = None
    lost: bool = False


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
        self._attempt: _Attempt | None = None
        self._heartbeat_at_monotonic = 0.0
        self._proof_at: float | None = None
        self._stopping = False

    def run(self) -> int:
        """Works until SIGTERM or SIGINT; returns the exit status."""
        self._end_stale_attempts(
            Fault(FaultCode.ENGINE_DIED, "the worker stopped in the middle of the attempt"),
            worker=self._settings.worker_name,
        )
        self._selector.register(self._wake.socket, selectors.EVENT_READ, self._woken)
        with _Signals(self._selector, self._stop):
            while not self._stopping:
                self._engine.look_after()
                self._watch_clocks()
                self._heartbeat()
                if self._attempt is None and self._engine.ready is not None:
                    self._lease_next()
                for key, _ in self._selector.select(POLL_SECONDS):
                    key.data()
        self._leave()
        return 0

    def _stop(self) -> None:
        self._stopping = True

    def _woken(self) -> None:
        self._wake.drain()
        self._heartbeat_at_monotonic = 0.0  # a cancel is seen by renewing the lease

    def _leave(self) -> None:
        attempt, self._attempt = self._attempt, None
        self._engine.close()
        if attempt is not None and not attempt.lost:
            self._store.jobs.give_back(attempt.lease)
            log.info("job.given_back", job_id=attempt.job.id)
        self._report(WorkerState.STOPPED, "stopped")
        self._wake.close()

    # The job in hand

    def _lease_next(self) -> None:
        settings = self._settings
        leased = self._store.jobs.lease_next(
            worker=settings.worker_name, seconds=settings.lease_seconds
        )
        if leased is None:
            return
        lease, job = leased
        deadline = self._monotonic() + settings.attempt_deadline_seconds
        self._attempt = _Attempt(lease=lease, job=job, deadline_monotonic=deadline)
        log.info("job.leased", job_id=job.id, attempt=lease.attempt)
        self._start_attempt(self._attempt)

    def _start_attempt(self, attempt: _Attempt) -> None:
        job, ready = attempt.job, self._engine.ready
        if ready is None:
            raise RuntimeError("a job was leased without an engine")
        model = self._engine.model(job.parameters.model)
        if model is None:
            self._end_attempt(
                Fault(FaultCode.BROKEN_MODEL, f"model {job.parameters.model} is gone")
            )
            return
        chosen = plan(job.parameters, model, ready.device)
        if not self._engine.takes(chosen.placement):
            self._store.jobs.give_back(attempt.lease)
            self._attempt = None
            self._engine.kill(f"a job wants placement {chosen.placement}")
            return
        self._engine.run(
            protocol.Run(
                job_id=job.id,
                attempt=attempt.lease.attempt,
                parameters=job.parameters,
                plan=chosen,
                model=model,
                pictures=[
                    protocol.PictureTask(index=picture.index, latents=picture.latents)
                    for picture in job.pictures
                    if picture.state is not JobState.PUBLISHED
                ],
            )
        )

    def _watch_clocks(self) -> None:
        attempt = self._attempt
        if attempt is None:
            return
        now = self._monotonic()
        cancel_by = attempt.cancel_deadline_monotonic
        if now >= attempt.deadline_monotonic:
            seconds = self._settings.attempt_deadline_seconds
            self._engine.kill(f"no picture within {seconds:g} s of the attempt")
        elif cancel_by is not None and now >= cancel_by:
            self._engine.kill("it did not obey a cancel")

    def _progress(self, event: protocol.Progress) -> None:
        attempt = self._attempt
        if attempt is None or attempt.job.id != event.job_id:
            return  # of a job that was given up meanwhile
        ended = isinstance(event, protocol.JobEnded | protocol.JobFailed)
        if attempt.lost:
            if ended:
                self._attempt = None
            return
        try:
            self._record(attempt, event)
        except LeaseLostError:
            self._lose(attempt)
            if ended:
                self._attempt = None

    def _record(self, attempt: _Attempt, event: protocol.Progress) -> None:
        jobs, lease = self._store.jobs, attempt.lease
        match event:
            case protocol.StepDone():
                attempt.stage = f"denoising, step {event.step} of {event.steps}"
                now = self._monotonic()
                if now - attempt.step_recorded_monotonic >= STEP_RECORD_SECONDS:
                    attempt.step_recorded_monotonic = now
                    jobs.record_step(lease, event.index, event.step)
            case protocol.LatentsStored():
                attempt.stage = "between denoising and decoding"
                jobs.record_latents(lease, event.index, event.latents)
            case protocol.DecodeStarted():
                attempt.stage = "decoding"
                jobs.record_decode_started(lease, event.index)
            case protocol.PictureEncoded():
                self._publish(attempt, event)
            case protocol.JobEnded(outcome="cancelled"):
                jobs.record_cancelled(lease)
                self._settle(attempt.job.id, JobState.CANCELLED)
            case protocol.JobEnded():
                if jobs.get(attempt.job.id).ended:
                    self._attempt = None
                else:
                    self._end_attempt(
                        Fault(FaultCode.ENGINE_ERROR, "the engine left pictures unmade")
                    )
            case protocol.JobFailed():
                self._end_attempt(Fault(event.code, event.detail))

    def _publish(self, attempt: _Attempt, event: protocol.PictureEncoded) -> None:
        job = self._store.jobs.publish(
            attempt.lease,
            event.index,
            Picture(
                index=event.index,
                state=JobState.PUBLISHED,
                step=attempt.job.parameters.num_inference_steps,
                latents=None,
                digest=event.digest,
                size_bytes=event.size_bytes,
                details=dict(event.details),
                warnings=tuple(event.warnings),
                seconds=event.seconds,
            ),
        )
        self._proof_at = time.time()
        if job.ended:
            # From here on nothing that happens to the engine can touch the job.
            self._settle(job.id, job.state)

    def _engine_died(self, reason: str) -> None:
        attempt = self._attempt
        if attempt is not None:
            late = self._monotonic() >= attempt.deadline_monotonic
            code = FaultCode.ATTEMPT_DEADLINE if late else FaultCode.ENGINE_DIED
            self._end_attempt(Fault(code, f"the engine ended while {attempt.stage}: {reason}"))
        self._report_now()

    def _end_attempt(self, fault: Fault) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is None or attempt.lost:
            return
        try:
            job = self._store.jobs.end_attempt(
                attempt.lease, fault, max_attempts=self._settings.max_attempts
            )
        except LeaseLostError:
            log.warning("lease.lost", job_id=attempt.job.id, attempt=attempt.lease.attempt)
            return
        log.warning("attempt.failed", job_id=job.id, code=fault.code, state=job.state)
        if job.ended:
            self._settle(job.id, job.state)

    def _settle(self, job_id: str, state: JobState) -> None:
        self._attempt = None
        self._store.wake("api")
        self._store.artefacts.drop_latents(job_id)
        log.info("job.ended", job_id=job_id, state=state)

    def _lose(self, attempt: _Attempt) -> None:
        attempt.lost = True
        log.warning("lease.lost", job_id=attempt.job.id, attempt=attempt.lease.attempt)
        self._cancel(attempt)

    def _cancel(self, attempt: _Attempt) -> None:
        if attempt.cancel_deadline_monotonic is None:
            grace_seconds = self._settings.cancel_grace_seconds
            attempt.cancel_deadline_monotonic = self._monotonic() + grace_seconds
            self._engine.cancel(attempt.job.id)

    # What the worker says of itself

    def _proven(self) -> None:
        self._proof_at = time.time()
        self._report_now()

    def _heartbeat(self) -> None:
        now = self._monotonic()
        if now < self._heartbeat_at_monotonic:
            return
        self._heartbeat_at_monotonic = now + HEARTBEAT_SECONDS
        self._report_now()
        self._renew_lease()  # before stale ones are ended: a clock that jumped must not end ours
        self._end_stale_attempts(
            Fault(FaultCode.LEASE_EXPIRED, "the worker that had the job stopped answering")
        )

    def _renew_lease(self) -> None:
        attempt = self._attempt
        if attempt is None or attempt.lost:
            return
        try:
            seconds = self._settings.lease_seconds
            if self._store.jobs.renew(attempt.lease, seconds=seconds):
                self._cancel(attempt)
        except LeaseLostError:
            self._lose(attempt)

    def _end_stale_attempts(self, fault: Fault, *, worker: str | None = None) -> None:
        for job in self._store.jobs.end_stale_attempts(
            fault, max_attempts=self._settings.max_attempts, worker=worker
        ):
            log.warning("attempt.failed", job_id=job.id, code=fault.code, state=job.state)
            if job.ended:
                self._store.artefacts.drop_latents(job.id)

    def _report_now(self) -> None:
        if self._engine.ready is not None:
            state = WorkerState.READY if self._attempt is None else WorkerState.BUSY
        else:
            state = WorkerState.FAILED if self._engine.trouble else WorkerState.STARTING
        self._report(state, self._engine.trouble)

    def _report(self, state: WorkerState, detail: str) -> None:
        ready = self._engine.ready
        self._store.workers.report(
            Worker(
                name=self._settings.worker_name,
                state=state,
                detail=detail,
                device=asdict(ready.device) if ready else None,
                versions=ready.versions if ready else None,
                heartbeat_at=time.time(),
                proof_at=self._proof_at,
            )
        )


class _Signals:
    """SIGTERM and SIGINT as something the loop can wait on."""

    def __init__(self, selector: selectors.BaseSelector, stop: Callable[[], None]) -> None:
        self._selector = selector
        self._stop = stop

    def __enter__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._read, selectors.EVENT_READ, self._stop)
        signal.set_wakeup_fd(self._write)
        self._before = {
            number: signal.signal(number, lambda *_: None)
            for number in (signal.SIGTERM, signal.SIGINT)
        }

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        self._selector.unregister(self._read)
        os.close(self._read)
        os.close(self._write)


def run(settings: Settings) -> int:
    """The worker process. Returns the exit status: 0 stopped, 3 another worker has this name."""
    store = Store(settings)
    store.prepare()
    with (settings.store_dir / f"worker-{settings.worker_name}.lock").open("w") as lock:
        if not _locked(lock):
            log.error("worker.refused", reason=f"{settings.worker_name} runs already")
            return EXIT_LOCKED
        try:
            return Supervisor(settings, store).run()
        finally:
            store.close()


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
