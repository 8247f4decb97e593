"""Every change to a job is one transaction here, checked against the life of a job."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from rockiln.domain.errors import (
    IdempotencyConflictError,
    IllegalTransitionError,
    JobNotCancellableError,
    LeaseLostError,
    QueueFullError,
    UnknownJobError,
)
from rockiln.domain.fault import Fault
from rockiln.domain.job import (
    DURABLE_POINT,
    FINAL_STATES,
    PICTURE_TRANSITIONS,
    RUNNING_STATES,
    TRANSITIONS,
    WAITING_STATES,
    JobState,
    least_advanced,
)
from rockiln.domain.request import GenerationParameters
from rockiln.store.database import Database
from rockiln.store.records import Job, Lease, Picture
from rockiln.store.tables import JobRow, PictureRow

RETRY_BACKOFF_SECONDS = 0.5
_RECENT_JOBS = 20


class JobStore:
    """Jobs in a database.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    # What clients do

    def submit(
        self,
        parameters: GenerationParameters,
        *,
        queue_max_jobs: int,
        idempotency_key: str | None = None,
        request_digest: str | None = None,
    ) -> Job:
        """Accepts a job. On return it is on disk.

        Raises:
            IdempotencyConflictError: the key came with another request before.
            QueueFullError: ``queue_max_jobs`` wait already.
        """
        now = self._clock()
        with self._database.write() as session:
            if idempotency_key is not None:
                known = session.scalar(
                    select(JobRow).where(JobRow.idempotency_key == idempotency_key)
                )
                if known is not None:
                    if known.request_digest != request_digest:
                        raise IdempotencyConflictError(
                            "this Idempotency-Key was used with another request",
                            job_id=known.id,
                        )
                    return _job(known)
            waiting = _count(session, WAITING_STATES)
            if waiting >= queue_max_jobs:
                raise QueueFullError(
                    f"{waiting} jobs wait already",
                    retry_after_seconds=_seconds_until_a_place_is_free(session),
                )
            row = JobRow(
                id=uuid.uuid4().hex,
                state=JobState.ACCEPTED,
                parameters=parameters.as_dict(),
                idempotency_key=idempotency_key,
                request_digest=request_digest,
                accepted_at=now,
                pictures=[
                    PictureRow(index=index, state=JobState.ACCEPTED)
                    for index in range(parameters.num_images)
                ],
            )
            session.add(row)
            session.flush()
            return _job(row)

    def get(self, job_id: str) -> Job:
        """Raises UnknownJobError."""
        with self._database.read() as session:
            return _job(_find(session, job_id))

    def page(
        self,
        *,
        limit: int,
        before_seq: int | None = None,
        states: Sequence[JobState] = (),
    ) -> list[Job]:
        """Newest first; ``before_seq`` continues a listing."""
        query = select(JobRow).order_by(JobRow.seq.desc()).limit(limit)
        if before_seq is not None:
            query = query.where(JobRow.seq < before_seq)
        if states:
            query = query.where(JobRow.state.in_(states))
        with self._database.read() as session:
            return [_job(row) for row in session.scalars(query)]

    def ended_among(self, job_ids: Sequence[str]) -> set[str]:
        """Which of these jobs have ended, in one query."""
        query = select(JobRow.id).where(JobRow.id.in_(job_ids), JobRow.state.in_(FINAL_STATES))
        with self._database.read() as session:
            return set(session.scalars(query))

    def queue_depth(self) -> dict[str, int]:
        """Jobs that wait and jobs that run."""
        with self._database.read() as session:
            return {
                "waiting": _count(session, WAITING_STATES),
                "running": _count(session, RUNNING_STATES),
            }

    def cancel(self, job_id: str) -> Job:
        """Ends a waiting job at once; asks the worker to drop a running one.

        Raises:
            UnknownJobError, JobNotCancellableError
        """
        with self._database.write() as session:
            row = _find(session, job_id, lock=True)
            state = JobState(row.state)
            if state in FINAL_STATES and state is not JobState.CANCELLED:
                raise JobNotCancellableError(f"the job is {state} already", state=state)
            row.cancel_requested = True
            if state in WAITING_STATES:
                self._end(row, JobState.CANCELLED)
            return _job(row)

    # What the worker does

    def lease_next(self, *, worker: str, seconds: float) -> tuple[Lease, Job] | None:
        """Takes the oldest job that may run, or None."""
        now = self._clock()
        query = (
            select(JobRow)
            .where(JobRow.state.in_(WAITING_STATES), JobRow.not_before <= now)
            .order_by(JobRow.seq)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        with self._database.read() as session:  # most polls find nothing; they take no write lock
            if session.scalar(query.with_only_columns(JobRow.seq)) is None:
                return None
        with self._database.write() as session:
            row = session.scalar(query)
            if row is None:
                return None
            _move(row, JobState.LEASED)
            row.attempt += 1
            row.lease_owner = worker
            row.lease_expires_at = now + seconds
            row.started_at = row.started_at or now
            return Lease(row.id, row.attempt, worker), _job(row)

    def renew(self, lease: Lease, *, seconds: float) -> bool:
        """Keeps the lease. Returns whether a client wants the job cancelled.

        Raises:
            LeaseLostError: another attempt owns the job; stop working on it.
        """
        with self._database.write() as session:
            row = _owned(session, lease)
            row.lease_expires_at = self._clock() + seconds
            return row.cancel_requested

    def record_step(self, lease: Lease, index: int, step: int) -> None:
        """Picture ``index`` has done ``step`` steps. Raises LeaseLostError."""
        with self._database.write() as session:
            row = _owned(session, lease)
            picture = row.pictures[index]
            if picture.state == JobState.ACCEPTED:
                _move_picture(picture, JobState.DENOISING)
            picture.step = step
            _follow_pictures(row)

    def record_latents(self, lease: Lease, index: int, latents: str) -> None:
        """The final latents are durable: no later attempt denoises again. Raises LeaseLostError."""
        with self._database.write() as session:
            row = _owned(session, lease)
            picture = row.pictures[index]
            if picture.state == JobState.ACCEPTED:
                _move_picture(picture, JobState.DENOISING)
            _move_picture(picture, JobState.LATENTS_STORED)
            picture.latents = latents
            picture.step = row.parameters["num_inference_steps"]
            _follow_pictures(row)

    def record_decode_started(self, lease: Lease, index: int) -> None:
        """Raises LeaseLostError."""
        with self._database.write() as session:
            row = _owned(session, lease)
            _move_picture(row.pictures[index], JobState.DECODING)
            _follow_pictures(row)

    def publish(self, lease: Lease, index: int, picture: Picture) -> Job:
        """Publishes a picture whose file is durable, fenced by (job, index, attempt).

        The last picture and ``done`` are one transaction.

        Raises:
            LeaseLostError: this attempt lost the job; nothing is published.
        """
        with self._database.write() as session:
            row = _owned(session, lease)
            target = row.pictures[index]
            _move_picture(target, JobState.ENCODED)
            _move_picture(target, JobState.PUBLISHED)
            target.digest = picture.digest
            target.size_bytes = picture.size_bytes
            target.details = picture.details
            target.warnings = list(picture.warnings)
            target.seconds = picture.seconds
            target.latents = None
            _follow_pictures(row)
            if row.state == JobState.PUBLISHED:
                self._end(row, JobState.DONE)
            return _job(row)

    def record_cancelled(self, lease: Lease) -> None:
        """The engine dropped the job. Raises LeaseLostError."""
        with self._database.write() as session:
            self._end(_owned(session, lease), JobState.CANCELLED)

    def give_back(self, lease: Lease) -> None:
        """Returns a job untouched by fault: the attempt does not count. Raises LeaseLostError."""
        with self._database.write() as session:
            row = _owned(session, lease)
            _to_durable_point(row)
            row.attempt -= 1
            _drop_lease(row)
            _move(row, JobState.ACCEPTED)

    def end_attempt(self, lease: Lease, fault: Fault, *, max_attempts: int) -> Job:
        """An attempt died: retry from the last durable point, or fail with the reason.

        Raises:
            LeaseLostError
        """
        with self._database.write() as session:
            row = _owned(session, lease)
            self._end_attempt(row, fault, max_attempts)
            return _job(row)

    def end_stale_attempts(
        self, fault: Fault, *, max_attempts: int, worker: str | None = None
    ) -> list[Job]:
        """Ends attempts whose lease ran out, or all those of ``worker``: it is known to be dead."""
        query = select(JobRow).where(JobRow.state.in_(RUNNING_STATES))
        if worker is None:
            query = query.where(JobRow.lease_expires_at < self._clock())
        else:
            query = query.where(JobRow.lease_owner == worker)
        with self._database.read() as session:
            if session.scalar(query.with_only_columns(JobRow.seq).limit(1)) is None:
                return []
        with self._database.write() as session:
            rows = list(session.scalars(query.with_for_update(skip_locked=True)))
            for row in rows:
                self._end_attempt(row, fault, max_attempts)
            return [_job(row) for row in rows]

    def _end_attempt(self, row: JobRow, fault: Fault, max_attempts: int) -> None:
        _to_durable_point(row)
        if row.cancel_requested:
            self._end(row, JobState.CANCELLED)
            return
        row.failure_code, row.failure_detail = fault.code, fault.detail
        if not fault.retryable:
            self._end(row, JobState.FAILED)
        elif row.attempt >= max_attempts:
            self._end(row, JobState.QUARANTINED if fault.kills_engine else JobState.FAILED)
        else:
            _drop_lease(row)
            row.not_before = self._clock() + RETRY_BACKOFF_SECONDS * 2 ** (row.attempt - 1)
            _move(row, JobState.RETRY_WAIT)

    def _end(self, row: JobRow, state: JobState) -> None:
        _move(row, state)
        _drop_lease(row)
        row.ended_at = self._clock()
        if state is JobState.DONE:  # a retry that ended well has no failure to show
            row.failure_code = row.failure_detail = None


def _find(session: Session, job_id: str, *, lock: bool = False) -> JobRow:
    query = select(JobRow).where(JobRow.id == job_id)
    row = session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise UnknownJobError(f"no job {job_id!r}")
    return row


def _owned(session: Session, lease: Lease) -> JobRow:
    row = _find(session, lease.job_id, lock=True)
    if (row.attempt, row.lease_owner) != (lease.attempt, lease.owner):
        raise LeaseLostError(f"attempt {lease.attempt} no longer owns job {lease.job_id}")
    return row


def _move(row: JobRow, to: JobState) -> None:
    if row.state == to:
        return
    if to not in TRANSITIONS[JobState(row.state)]:
        raise IllegalTransitionError(f"job {row.id}: {row.state} to {to}")
    row.state = to


def _move_picture(picture: PictureRow, to: JobState) -> None:
    if to not in PICTURE_TRANSITIONS[JobState(picture.state)]:
        raise IllegalTransitionError(f"picture {picture.index}: {picture.state} to {to}")
    picture.state = to


def _follow_pictures(row: JobRow) -> None:
    _move(row, least_advanced(JobState(picture.state) for picture in row.pictures))


def _to_durable_point(row: JobRow) -> None:
    for picture in row.pictures:
        picture.state = DURABLE_POINT[JobState(picture.state)]
        if picture.state == JobState.ACCEPTED:
            picture.step = 0


def _drop_lease(row: JobRow) -> None:
    row.lease_owner = None
    row.lease_expires_at = None


def _count(session: Session, states: frozenset[JobState]) -> int:
    return session.scalar(select(func.count()).where(JobRow.state.in_(states))) or 0


def _seconds_until_a_place_is_free(session: Session) -> int:
    """Mean running time of the last jobs: one place is free when one job has run."""
    recent = session.execute(
        select(JobRow.started_at, JobRow.ended_at)
        .where(JobRow.state == JobState.DONE)
        .order_by(JobRow.seq.desc())
        .limit(_RECENT_JOBS)
    ).all()
    spans = [ended - started for started, ended in recent if started and ended]
    return max(1, round(sum(spans) / len(spans))) if spans else 1


def _job(row: JobRow) -> Job:
    return Job(
        seq=row.seq,
        id=row.id,
        state=JobState(row.state),
        parameters=GenerationParameters(**row.parameters),
        accepted_at=row.accepted_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        attempt=row.attempt,
        cancel_requested=row.cancel_requested,
        failure_code=row.failure_code,
        failure_detail=row.failure_detail,
        pictures=tuple(
            Picture(
                index=picture.index,
                state=JobState(picture.state),
                step=picture.step,
                latents=picture.latents,
                digest=picture.digest,
                size_bytes=picture.size_bytes,
                details=picture.details or {},
                warnings=tuple(picture.warnings or ()),
                seconds=picture.seconds or {},
            )
            for picture in row.pictures
        ),
    )
