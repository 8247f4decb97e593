"""What clients do with jobs: submit, look, move, cancel."""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

from sqlalchemy import ColumnElement, bindparam, func, insert, literal, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from rockiln.domain.errors import (
    IdempotencyConflictError,
    JobNotCancellableError,
    JobNotWaitingError,
    QueueFullError,
)
from rockiln.domain.job import FINAL_STATES, RUNNING_STATES, WAITING_STATES, JobState
from rockiln.domain.request import GenerationParameters
from rockiln.store import life
from rockiln.store.database import Database, log_event, retried_class
from rockiln.store.records import Job, Move, Picture, Place, Purpose, Queue, QueueLimits
from rockiln.store.search import matching
from rockiln.store.tables import JobRow, PictureRow

_RECENT_JOBS = 20

_NOT_DELETED = JobRow.deleted_at.is_(None)
# Written once, as those of every call are: to build a statement takes longer than to run it.
_WAITS = JobRow.state.in_(list(map(literal, WAITING_STATES)))
_LOAD = select(func.count(), func.sum(JobRow.estimated_seconds))
_LOAD_WAITING = _LOAD.where(_WAITS)
_INSERT_JOB = insert(JobRow)
_INSERT_PICTURE = insert(PictureRow)
_DURATIONS = (
    select(JobRow.parameters, JobRow.ended_at - JobRow.started_at)
    .where(
        JobRow.state == literal(JobState.DONE),
        JobRow.purpose == literal("picture"),
        JobRow.started_at.is_not(None),
        _NOT_DELETED,
    )
    .order_by(JobRow.seq.desc())
    .limit(bindparam("limit"))
)
_ENDED_AMONG = select(JobRow.__table__).where(
    JobRow.id.in_(bindparam("job_ids", expanding=True)),
    JobRow.state.in_(list(map(literal, FINAL_STATES))),
)


@retried_class
class Submissions:
    """The client's half of ``JobStore``."""

    _database: Database
    _clock: Callable[[], float]

    def submit(
        self,
        parameters: GenerationParameters,
        *,
        limits: QueueLimits,
        owner: str = "",
        purpose: Purpose = "picture",
        estimated_seconds: float = 0.0,
        idempotency_key: str | None = None,
        request_digest: str | None = None,
    ) -> Job:
        """Accepts a job. On return it is on disk.

        Args:
            estimated_seconds: what it will take of a device.

        Raises:
            IdempotencyConflictError: the key came with another request before.
            QueueFullError: more waits already than ``limits`` allow.
        """
        stored_key = _stored_key(owner, idempotency_key)
        job = Job(
            seq=0,  # the database gives it
            id=uuid.uuid4().hex,
            state=JobState.ACCEPTED,
            parameters=parameters,
            accepted_at=self._clock(),
            pictures=tuple(
                Picture(index, JobState.ACCEPTED) for index in range(parameters.num_images)
            ),
            owner=owner,
            purpose=purpose,
            estimated_seconds=estimated_seconds,
        )
        try:
            with self._database.write() as session:
                self._database.take_turn(session)  # the bounds hold whoever else submits
                known = _repeat(session, stored_key, request_digest)
                if known is not None:
                    return known
                _check_limits(session, limits, owner, estimated_seconds)
                seq = _insert(session, job, stored_key, request_digest)
                log_event(session, job_id=job.id, kind=job.state, payload={}, at=job.accepted_at)
                return replace(job, seq=seq)
        except IntegrityError:
            # Another process took the key between our look and our insert.
            with self._database.read() as session:
                known = _repeat(session, stored_key, request_digest)
            if known is None:
                raise
            return known

    def find_repeat(
        self, idempotency_key: str, request_digest: str | None, *, owner: str = ""
    ) -> Job | None:
        """The job that this key was accepted with, if any.

        Raises:
            IdempotencyConflictError: it came with another request.
        """
        with self._database.read() as session:
            return _repeat(session, _stored_key(owner, idempotency_key), request_digest)

    def get(self, job_id: str) -> Job:
        """Raises UnknownJobError."""
        with self._database.read() as session:
            return life.as_job(life.find(session, job_id))

    def page(
        self,
        *,
        limit: int,
        before_seq: int | None = None,
        states: Sequence[JobState] = (),
        owner: str | None = None,
        purpose: Purpose | None = None,
        search: str = "",
    ) -> list[Job]:
        """Newest first; ``before_seq`` continues a listing; ``owner`` None is everybody's.

        Args:
            search: words that the request must have, as ``search.matching`` reads them.
        """
        query = select(JobRow).where(_NOT_DELETED, *matching(search))
        query = query.order_by(JobRow.seq.desc()).limit(limit)
        if before_seq is not None:
            query = query.where(JobRow.seq < before_seq)
        if states:
            query = query.where(JobRow.state.in_(states))
        if owner is not None:
            query = query.where(JobRow.owner == owner)
        if purpose is not None:
            query = query.where(JobRow.purpose == purpose)
        with self._database.read() as session:
            return [life.as_job(row) for row in session.scalars(query)]

    def ended_among(self, job_ids: Sequence[str]) -> dict[str, Job | None]:
        """Those of these jobs that have ended, asked at once; None for one deleted since."""
        with self._database.look() as connection:
            rows = connection.execute(_ENDED_AMONG, {"job_ids": job_ids}).all()
            pictures = life.pictures_of(connection, [row.seq for row in rows])
        return {
            row.id: None if row.deleted_at else life.job_of(row, pictures[row.seq]) for row in rows
        }

    def durations(self, limit: int) -> list[tuple[GenerationParameters, float]]:
        """What the last pictures took, seconds from the first attempt to the end, newest first."""
        with self._database.read() as session:
            return [
                (GenerationParameters.from_dict(parameters), seconds)
                for parameters, seconds in session.execute(_DURATIONS, {"limit": limit})
            ]

    def open_jobs_of(self, model_id: str) -> int:
        """How many jobs that are not done use a model."""
        states = [state.value for state in JobState if state not in FINAL_STATES]
        query = (
            select(func.count())
            .select_from(JobRow)
            .where(JobRow.state.in_(states), JobRow.parameters["model"].as_string() == model_id)
        )
        with self._database.read() as session:
            return session.scalar(query) or 0

    def counts(self) -> dict[str, int]:
        """Kept jobs per state."""
        query = select(JobRow.state, func.count()).where(_NOT_DELETED).group_by(JobRow.state)
        with self._database.read() as session:
            found = {state: count for state, count in session.execute(query)}  # noqa: C416 (typed)
        return {state.value: found.get(state, 0) for state in JobState}

    def queue(self) -> Queue:
        """What waits and what runs, of everybody."""
        with self._database.read() as session:
            waiting, waiting_seconds = _load(session)
            running, running_seconds = _load(session, JobRow.state.in_(RUNNING_STATES))
        return Queue(waiting, running, waiting_seconds, running_seconds)

    def place(self, job_id: str) -> Place | None:
        """Where a waiting job stands; None if it does not wait.

        An estimate: between owners the queue takes turns, and a retry may overtake.

        Raises:
            UnknownJobError
        """
        with self._database.read() as session:
            row = life.find(session, job_id)
            if row.state not in WAITING_STATES:
                return None
            before = _turn(row) > life.TURN
            ahead, seconds = _load(session, _WAITS, before)
            _, running_seconds = _load(session, JobRow.state.in_(RUNNING_STATES))
            return Place(position=ahead + 1, seconds_ahead=seconds + running_seconds)

    def waiting(self, *, limit: int, owner: str | None = None) -> list[Job]:
        """Those that wait, the next one first; ``owner`` None is everybody's."""
        query = select(JobRow).where(_NOT_DELETED, JobRow.state.in_(WAITING_STATES))
        query = query.order_by(life.TURN).limit(limit)
        if owner is not None:
            query = query.where(JobRow.owner == owner)
        with self._database.read() as session:
            return [life.as_job(row) for row in session.scalars(query)]

    def move(self, job_id: str, to: Move) -> Job:
        """Moves a waiting job among those of its owner, whose turns are only dealt anew.

        Raises:
            UnknownJobError, JobNotWaitingError
        """
        with self._database.write() as session:
            row = life.find(session, job_id)
            line = select(JobRow).where(
                _NOT_DELETED, JobRow.owner == row.owner, JobRow.state.in_(WAITING_STATES)
            )
            # Locked in one order, so that two moves wait for each other, and read as they are then.
            line = line.order_by(JobRow.seq).with_for_update()
            rows = sorted(
                session.scalars(line.execution_options(populate_existing=True)), key=_turn
            )
            if row not in rows:
                raise JobNotWaitingError(f"the job is {row.state}", state=row.state)
            turns = list(map(_turn, rows))
            place = rows.index(row)
            target = {"first": 0, "up": max(0, place - 1), "down": place + 1}[to]
            rows.insert(target, rows.pop(place))
            for each, turn in zip(rows, turns, strict=True):
                each.turn = turn
            return life.as_job(row)

    def cancel(self, job_id: str) -> Job:
        """Ends a waiting job at once; asks the worker to drop a running one.

        Raises:
            UnknownJobError, JobNotCancellableError
        """
        with self._database.write() as session:
            row = life.find(session, job_id, lock=True)
            state = JobState(row.state)
            if state in FINAL_STATES and state is not JobState.CANCELLED:
                raise JobNotCancellableError(f"the job is {state} already", state=state)
            row.cancel_requested = True
            if state in WAITING_STATES:
                life.end(row, JobState.CANCELLED, self._clock())
            return life.as_job(row)


def _insert(session: Session, job: Job, stored_key: str | None, request_digest: str | None) -> int:
    """By plain statements: a caller waits, and mapped objects take twice the time."""
    connection = session.connection()
    inserted = connection.execute(
        _INSERT_JOB,
        {
            "id": job.id,
            "owner": job.owner,
            "purpose": job.purpose,
            "state": job.state,
            "parameters": job.parameters.as_dict(),
            "estimated_seconds": job.estimated_seconds,
            "idempotency_key": stored_key,
            "request_digest": request_digest,
            "accepted_at": job.accepted_at,
        },
    )
    (seq,) = cast("tuple[int]", inserted.inserted_primary_key)
    connection.execute(
        _INSERT_PICTURE,
        [
            {"job_seq": seq, "picture_index": picture.index, "state": picture.state}
            for picture in job.pictures
        ],
    )
    return seq


def _turn(row: JobRow) -> int:
    return row.seq if row.turn is None else row.turn


def _stored_key(owner: str, key: str | None) -> str | None:
    """Two owners may choose the same key; the column is unique over all of them."""
    if key is None or not owner:
        return key
    return hashlib.sha256(f"{owner}\0{key}".encode()).hexdigest()


def _repeat(session: Session, stored_key: str | None, request_digest: str | None) -> Job | None:
    if stored_key is None:
        return None
    known = session.scalar(select(JobRow).where(JobRow.idempotency_key == stored_key))
    if known is None:
        return None
    if known.request_digest != request_digest:
        raise IdempotencyConflictError(
            "this Idempotency-Key was used with another request", job_id=known.id
        )
    return life.as_job(known)


def _load(session: Session, *which: ColumnElement[bool]) -> tuple[int, float]:
    """Count and estimated seconds; of those that wait, unless something else is said."""
    query = _LOAD.where(*which) if which else _LOAD_WAITING
    count, seconds = session.connection().execute(query).one()
    return count, float(seconds or 0.0)


def _check_limits(
    session: Session, limits: QueueLimits, owner: str, estimated_seconds: float
) -> None:
    jobs, seconds = _load(session)

    def refuse(
        reason: str, detail: str, *, places: float = 1.0, at_least_seconds: float = 0.0
    ) -> None:
        after_seconds = max(at_least_seconds, places * _mean_seconds(session))
        raise QueueFullError(
            detail,
            reason=reason,
            retry_after_seconds=max(1, math.ceil(after_seconds)),
            waiting_jobs=jobs,
            waiting_seconds=round(seconds, 1),
        )

    if jobs >= limits.max_jobs:
        refuse("jobs", f"{jobs} jobs wait already")
    if limits.max_jobs_per_owner is not None and owner:
        own, _ = _load(session, _WAITS, JobRow.owner == owner)
        if own >= limits.max_jobs_per_owner:
            refuse("owner", f"{own} jobs of yours wait already", places=max(1, jobs / own))
    # One job alone is never too much: it could not be sent at any other time either.
    if limits.max_seconds is not None and jobs:
        over = seconds + estimated_seconds - limits.max_seconds
        if over > 0:
            refuse("seconds", f"work for {seconds:.0f} s waits already", at_least_seconds=over)


def _mean_seconds(session: Session) -> float:
    """Mean running time of the last jobs: one place is free when one job has run."""
    recent = session.execute(
        select(JobRow.started_at, JobRow.ended_at)
        .where(JobRow.state == JobState.DONE)
        .order_by(JobRow.seq.desc())
        .limit(_RECENT_JOBS)
    ).all()
    spans = [ended - started for started, ended in recent if started and ended]
    return sum(spans) / len(spans) if spans else 1.0
