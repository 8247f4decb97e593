"""What workers do with jobs: lease, record, publish, end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    bindparam,
    func,
    literal,
    not_,
    or_,
    select,
    update,
)

from rockiln.domain.fault import Fault, FaultCode
from rockiln.domain.job import RUNNING_STATES, WAITING_STATES, JobState
from rockiln.domain.ladder import Rungs
from rockiln.domain.request import GenerationParameters
from rockiln.store import life
from rockiln.store.boot_clock import Tick
from rockiln.store.database import Database, log_event, retried_class
from rockiln.store.records import Job, Lease, Picture
from rockiln.store.tables import AttemptRow, JobRow

RETRY_BACKOFF_SECONDS = 0.5
RETRY_BACKOFF_MAX_SECONDS = 30.0
# Attempts of a job that do not count, such as those of a worker that was lost, end here too.
UNCOUNTED_ATTEMPTS_FACTOR = 10

# Jobs that may run. A pause longer than any we give comes from a clock that was set back.
_DUE = and_(
    JobRow.state.in_(list(map(literal, WAITING_STATES))),
    or_(JobRow.not_before <= bindparam("now"), JobRow.not_before > bindparam("no_pause_ends_by")),
)
_OWNERS_WAITING = select(JobRow.owner, func.min(life.TURN)).where(_DUE).group_by(JobRow.owner)
_NEXT_OF_OWNER = (
    select(JobRow.__table__)
    .where(_DUE, JobRow.owner == bindparam("owner"))
    .order_by(life.TURN)
    .limit(1)
    .with_for_update(skip_locked=True)
)
_LEASE = update(JobRow).where(JobRow.seq == bindparam("of_seq"))


@retried_class
class Work:
    """The worker's half of ``JobStore``."""

    _database: Database
    _clock: Callable[[], float]
    _tick: Callable[[], Tick]

    def lease_next(self, *, worker: str, seconds: float) -> tuple[Lease, Job] | None:
        """Takes the job whose turn it is, or None.

        Owners take turns; an owner's own jobs go in the order of their turns.
        """
        now = self._clock()
        with self._database.write() as session:  # no look before it: a caller waits
            connection = session.connection()  # plain statements, likewise
            row = _whose_turn(connection, now)
            if row is None:
                return None
            attempt, started_at = row.attempt + 1, row.started_at or now
            tick = self._tick()
            same_boot = row.started_boot == tick.boot
            changed = {
                "state": JobState.LEASED,
                "attempt": attempt,
                "lease_owner": worker,
                "leased_at": now,
                "started_at": started_at,
                "started_boot": tick.boot,
                "started_tick": row.started_tick if same_boot else tick.seconds,
                **self._lease_until(attempt, seconds),
            }
            connection.execute(_LEASE, {"of_seq": row.seq, **changed})
            told = {"attempt": attempt, "worker": worker}
            log_event(session, job_id=row.id, kind=JobState.LEASED, payload=told, at=now)
            job = life.job_of(row, life.pictures_of(connection, [row.seq])[row.seq])
            job = replace(job, state=JobState.LEASED, attempt=attempt, started_at=started_at)
            return Lease(job.id, attempt, worker), job

    def renew(self, lease: Lease, *, seconds: float) -> bool:
        """Keeps the lease. Returns whether a client wants the job cancelled.

        Raises:
            LeaseLostError: another attempt owns the job; stop working on it.
        """
        with self._database.write() as session:
            row = life.owned(session, lease)
            for name, value in self._lease_until(row.attempt, seconds).items():
                setattr(row, name, value)
            return row.cancel_requested

    def record_step(self, lease: Lease, index: int, step: int) -> None:
        """Picture ``index`` has done ``step`` steps. Raises LeaseLostError."""
        with self._database.write() as session:
            row = life.owned(session, lease)
            life.denoising_picture(row, index).step = step
            life.follow_pictures(row)
            steps = _steps(row)
            life.tell(row, "step", self._clock(), index=index, step=step, steps=steps)

    def record_preview(self, lease: Lease, index: int, step: int) -> None:
        """A preview of picture ``index`` can be looked at. Raises LeaseLostError."""
        with self._database.write() as session:
            row = life.owned(session, lease)
            life.tell(row, "preview", self._clock(), index=index, step=step, steps=_steps(row))

    def record_latents(self, lease: Lease, index: int, latents: str) -> None:
        """The final latents are durable: no later attempt denoises again. Raises LeaseLostError."""
        with self._database.write() as session:
            row = life.owned(session, lease)
            picture = life.denoising_picture(row, index)
            life.move_picture(picture, JobState.LATENTS_STORED)
            picture.latents = latents
            picture.step = _steps(row)
            life.follow_pictures(row)
            life.tell(row, JobState.LATENTS_STORED, self._clock(), index=index)

    def record_decode_started(self, lease: Lease, index: int) -> None:
        """Raises LeaseLostError."""
        with self._database.write() as session:
            row = life.owned(session, lease)
            life.move_picture(row.pictures[index], JobState.DECODING)
            life.follow_pictures(row)
            life.tell(row, JobState.DECODING, self._clock(), index=index)

    def publish(
        self,
        lease: Lease,
        index: int,
        picture: Picture,
        *,
        peak_bytes: dict[str, int] | None = None,
    ) -> Job:
        """Publishes a picture whose file is durable, fenced by (job, index, attempt).

        The last picture and ``done`` are one transaction.

        Args:
            peak_bytes: device memory at the peak of each stage, for the job's log.

        Raises:
            LeaseLostError: this attempt lost the job; nothing is published.
        """
        with self._database.write() as session:
            row = life.owned(session, lease)
            target = row.pictures[index]
            life.move_picture(target, JobState.ENCODED)
            life.move_picture(target, JobState.PUBLISHED)
            target.digest = picture.digest
            target.size_bytes = picture.size_bytes
            target.details = picture.details
            target.warnings = list(picture.warnings)
            target.seconds = picture.seconds
            target.latents = None
            life.follow_pictures(row)
            now = self._clock()
            told = {"seconds": picture.seconds, "peak_bytes": peak_bytes or {}}
            life.tell(row, JobState.PUBLISHED, now, index=index, **told)
            if row.state == JobState.PUBLISHED:
                life.end(row, JobState.DONE, now)
            return life.as_job(row)

    def record_warmed_up(self, lease: Lease) -> None:
        """A warm-up has run; nobody asked for its pictures. Raises LeaseLostError."""
        with self._database.write() as session:
            life.end(life.owned(session, lease), JobState.DONE, self._clock())

    def record_cancelled(self, lease: Lease) -> None:
        """The engine dropped the job. Raises LeaseLostError."""
        with self._database.write() as session:
            life.end(life.owned(session, lease), JobState.CANCELLED, self._clock())

    def give_back(self, lease: Lease) -> None:
        """Returns a job untouched by fault: the attempt does not count. Raises LeaseLostError."""
        with self._database.write() as session:
            row = life.owned(session, lease)
            life.to_durable_point(row)
            row.attempt -= 1
            life.drop_lease(row)
            life.move(row, JobState.ACCEPTED)
            life.tell(row, JobState.ACCEPTED, self._clock())

    def end_attempt(
        self,
        lease: Lease,
        fault: Fault,
        *,
        max_attempts: int,
        rungs: Rungs | None = None,
        climbed: bool = False,
        evidence: str | None = None,
    ) -> Job:
        """An attempt died: retry from the last durable point, or end with the reason.

        Args:
            rungs: what the next attempt has to use.
            climbed: ``rungs`` are safer than those of this attempt, which then does not count.
            evidence: file name of what is known of the death.

        Raises:
            LeaseLostError
        """
        with self._database.write() as session:
            row = life.owned(session, lease)
            self._end_attempt(row, fault, max_attempts, rungs, climbed=climbed, evidence=evidence)
            return life.as_job(row)

    def end_stale_attempts(
        self, fault: Fault, *, max_attempts: int, worker: str | None = None
    ) -> list[Job]:
        """Ends attempts whose lease ran out, or all those of ``worker``: it is known to be dead."""
        query = select(JobRow).where(JobRow.state.in_(RUNNING_STATES))
        query = query.where(
            _run_out(self._tick(), self._clock())
            if worker is None
            else JobRow.lease_owner == worker
        )
        with self._database.read() as session:
            if session.scalar(query.with_only_columns(JobRow.seq).limit(1)) is None:
                return []
        with self._database.write() as session:
            rows = list(session.scalars(query.with_for_update(skip_locked=True)))
            for row in rows:
                self._end_attempt(row, fault, max_attempts)
            return [life.as_job(row) for row in rows]

    def fail_overdue(self, seconds: float) -> list[Job]:
        """Fails waiting jobs that were started more than ``seconds`` ago.

        The time for which the host was down is not theirs.
        """
        tick = self._tick()
        query = select(JobRow).where(
            JobRow.state.in_(WAITING_STATES),
            JobRow.started_boot == tick.boot,
            JobRow.started_tick < tick.seconds - seconds,
        )
        with self._database.read() as session:
            if session.scalar(query.with_only_columns(JobRow.seq).limit(1)) is None:
                return []
        with self._database.write() as session:
            rows = list(session.scalars(query.with_for_update(skip_locked=True)))
            for row in rows:
                before = "" if row.failure_detail is None else f"; last: {row.failure_detail}"
                row.failure_code = FaultCode.JOB_DEADLINE
                row.failure_detail = f"not made within {seconds:g} s of its first attempt{before}"
                life.end(row, JobState.FAILED, self._clock())
            return [life.as_job(row) for row in rows]

    def _lease_until(self, attempt: int, seconds: float) -> dict[str, Any]:
        """The columns that say it."""
        tick = self._tick()
        return {
            "lease_expires_at": self._clock() + seconds,  # version 0001 goes by it
            "lease_boot": tick.boot,
            "lease_ends_tick": tick.seconds + seconds,
            "lease_attempt": attempt,
        }

    def _end_attempt(
        self,
        row: JobRow,
        fault: Fault,
        max_attempts: int,
        rungs: Rungs | None = None,
        *,
        climbed: bool = False,
        evidence: str | None = None,
    ) -> None:
        now = self._clock()
        attempt = AttemptRow(
            job_id=row.id,
            attempt=row.attempt,
            worker=row.lease_owner or "",
            code=fault.code,
            stage=fault.stage,
            detail=fault.detail,
            kills_engine=fault.kills_engine,
            rungs=None if rungs is None else rungs.as_dict(),
            evidence=evidence,
            at=now,
        )
        row.killed_attempts += fault.kills_engine
        row.counted_attempts += fault.counts and not climbed
        life.to_durable_point(row)
        life.session_of(row).add(attempt)
        if row.cancel_requested:
            life.end(row, JobState.CANCELLED, now)
            return
        row.failure_code, row.failure_detail = fault.code, fault.detail
        if not fault.retryable:
            life.end(row, JobState.FAILED, now)
        elif row.killed_attempts >= max_attempts:
            life.end(row, JobState.QUARANTINED, now)
        elif row.counted_attempts >= max_attempts or (
            row.attempt >= max_attempts * UNCOUNTED_ATTEMPTS_FACTOR
            and fault.code is not FaultCode.STORAGE_FULL  # only its deadline ends that
        ):
            life.end(row, JobState.FAILED, now)
        else:
            life.drop_lease(row)
            if rungs is not None:
                row.rungs = rungs.as_dict()
            row.not_before = now + _pause(row, fault, climbed=climbed)
            life.move(row, JobState.RETRY_WAIT)
            life.tell(
                row,
                JobState.RETRY_WAIT,
                now,
                code=fault.code,
                stage=fault.stage,
                rungs=row.rungs,
            )


def _run_out(tick: Tick, now: float) -> ColumnElement[bool]:
    """Whose lease has ended: by the boot clock, or by the date where version 0001 gave it."""
    by_tick = and_(JobRow.lease_attempt.is_not(None), JobRow.lease_attempt == JobRow.attempt)
    return or_(
        JobRow.lease_expires_at.is_(None),
        and_(by_tick, or_(JobRow.lease_boot != tick.boot, JobRow.lease_ends_tick < tick.seconds)),
        and_(not_(by_tick), JobRow.lease_expires_at < now),
    )


def _pause(row: JobRow, fault: Fault, *, climbed: bool) -> float:
    """Before the next attempt, seconds. What the job is not to blame for is tried at once."""
    if fault.code is FaultCode.STORAGE_FULL:  # unless somebody has to make room first
        return _backoff(row.attempt)
    return 0.0 if climbed or not fault.counts else _backoff(row.counted_attempts)


def _backoff(attempts: int) -> float:
    seconds: float = RETRY_BACKOFF_SECONDS * 2 ** max(0, attempts - 1)
    return min(RETRY_BACKOFF_MAX_SECONDS, seconds)


def _steps(row: JobRow) -> int:
    """Of one picture."""
    return GenerationParameters.from_dict(row.parameters).total_steps


def _due_at(now: float) -> dict[str, float]:
    return {"now": now, "no_pause_ends_by": now + RETRY_BACKOFF_MAX_SECONDS}


def _owners_waiting(connection: Connection, now: float) -> dict[str, int]:
    """Owners with a job that may run → the first turn of theirs."""
    found = connection.execute(_OWNERS_WAITING, _due_at(now))
    return {owner: turn for owner, turn in found}  # noqa: C416 (typed)


def _whose_turn(connection: Connection, now: float) -> Row[Any] | None:
    """The next due job of the owner who was served longest ago, locked."""
    waiting = _owners_waiting(connection, now)
    served: dict[str, float] = {}
    if len(waiting) > 1:
        last = (
            select(JobRow.owner, func.max(JobRow.leased_at))
            .where(JobRow.owner.in_(waiting))
            .group_by(JobRow.owner)
        )
        served = {owner: at or 0.0 for owner, at in connection.execute(last)}
    for owner in sorted(waiting, key=lambda name: (served.get(name, 0.0), waiting[name])):
        row = connection.execute(_NEXT_OF_OWNER, {**_due_at(now), "owner": owner}).one_or_none()
        if row is not None:  # as it was once it was locked, not as the statement before saw it
            return row
    return None
