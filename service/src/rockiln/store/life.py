"""How a job's row moves: every function here works inside somebody's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, bindparam, func, select
from sqlalchemy.orm import Session, joinedload, object_session

from rockiln.domain.errors import IllegalTransitionError, LeaseLostError, UnknownJobError
from rockiln.domain.job import (
    DURABLE_POINT,
    PICTURE_TRANSITIONS,
    TRANSITIONS,
    JobState,
    least_advanced,
)
from rockiln.domain.request import GenerationParameters
from rockiln.store.database import log_event
from rockiln.store.records import Job, Lease, Picture
from rockiln.store.tables import JobRow, PictureRow

# Which of an owner's waiting jobs is next.
TURN: ColumnElement[int] = func.coalesce(JobRow.turn, JobRow.seq)
# Written once: to build a statement takes longer than to run it.
_BY_ID = select(JobRow).options(joinedload(JobRow.pictures)).where(JobRow.id == bindparam("job_id"))
_PICTURES_OF = (
    select(PictureRow.__table__)
    .where(PictureRow.job_seq.in_(bindparam("seqs", expanding=True)))
    .order_by(PictureRow.index)
)
_BY_ID_LOCKED = _BY_ID.with_for_update(of=JobRow)


def by_id(session: Session, job_id: str, *, lock: bool = False) -> JobRow | None:
    """The row and its pictures, deleted or not."""
    found = session.scalars(_BY_ID_LOCKED if lock else _BY_ID, {"job_id": job_id})
    return found.unique().one_or_none()


def find(session: Session, job_id: str, *, lock: bool = False) -> JobRow:
    """Raises UnknownJobError."""
    row = by_id(session, job_id, lock=lock)
    if row is None or row.deleted_at is not None:
        raise UnknownJobError(f"no job {job_id!r}")
    return row


def owned(session: Session, lease: Lease) -> JobRow:
    """The row that ``lease`` is for, deleted or not. Raises LeaseLostError."""
    row = by_id(session, lease.job_id, lock=True)
    if row is None or (row.attempt, row.lease_owner) != (lease.attempt, lease.owner):
        raise LeaseLostError(f"attempt {lease.attempt} no longer owns job {lease.job_id}")
    return row


def tell(row: JobRow, kind: str, now: float, **payload: Any) -> None:
    """Adds a line to the log, in the transaction of the change."""
    log_event(session_of(row), job_id=row.id, kind=kind, payload=payload, at=now)


def session_of(row: JobRow) -> Session:
    """The transaction that the row is changed in."""
    session = object_session(row)
    if session is None:
        raise RuntimeError(f"job {row.id} is changed outside a transaction")
    return session


def move(row: JobRow, to: JobState) -> None:
    """Raises IllegalTransitionError."""
    if row.state == to:
        return
    if to not in TRANSITIONS[JobState(row.state)]:
        raise IllegalTransitionError(f"job {row.id}: {row.state} to {to}")
    row.state = to


def move_picture(picture: PictureRow, to: JobState) -> None:
    """Raises IllegalTransitionError."""
    if to not in PICTURE_TRANSITIONS[JobState(picture.state)]:
        raise IllegalTransitionError(f"picture {picture.index}: {picture.state} to {to}")
    picture.state = to


def denoising_picture(row: JobRow, index: int) -> PictureRow:
    """The picture, moved to DENOISING by its first step.

    Raises:
        IllegalTransitionError: its latents are stored; nothing of it is denoised again.
    """
    picture = row.pictures[index]
    if picture.state == JobState.ACCEPTED:
        move_picture(picture, JobState.DENOISING)
    if picture.state != JobState.DENOISING:
        raise IllegalTransitionError(f"picture {index}: a step while it is {picture.state}")
    return picture


def follow_pictures(row: JobRow) -> None:
    """A job's state is that of its least advanced picture."""
    move(row, least_advanced(JobState(picture.state) for picture in row.pictures))


def to_durable_point(row: JobRow) -> None:
    """What is not on disk is undone."""
    for picture in row.pictures:
        picture.state = DURABLE_POINT[JobState(picture.state)]
        if picture.state == JobState.ACCEPTED:
            picture.step = 0


def drop_lease(row: JobRow) -> None:
    """Nobody works on the job."""
    row.lease_owner = row.lease_expires_at = None
    row.lease_boot = row.lease_ends_tick = row.lease_attempt = None


def end(row: JobRow, state: JobState, now: float) -> None:
    """The job's last move."""
    move(row, state)
    drop_lease(row)
    row.ended_at = now
    if state is JobState.DONE:  # a retry that ended well has no failure to show
        row.failure_code = row.failure_detail = None
    reason = {} if row.failure_code is None else {"code": row.failure_code}
    tell(row, state, now, **reason)


def as_job(row: JobRow) -> Job:
    """The row as a value."""
    return job_of(row, [_picture(each.index, each) for each in row.pictures])


def job_of(row: JobRow | Row[Any], pictures: Iterable[Picture]) -> Job:
    """The job of a row, of its class or plain."""
    return Job(
        seq=row.seq,
        id=row.id,
        state=JobState(row.state),
        parameters=GenerationParameters.from_dict(row.parameters),
        accepted_at=row.accepted_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        attempt=row.attempt,
        cancel_requested=row.cancel_requested,
        failure_code=row.failure_code,
        failure_detail=row.failure_detail,
        pictures=tuple(pictures),
        owner=row.owner,
        purpose="warm_up" if row.purpose == "warm_up" else "picture",
        estimated_seconds=row.estimated_seconds,
        rungs=row.rungs,
        killed_attempts=row.killed_attempts,
    )


def pictures_of(connection: Connection, seqs: Sequence[int]) -> dict[int, list[Picture]]:
    """``seq`` of each job → its pictures in their order."""
    found: dict[int, list[Picture]] = {seq: [] for seq in seqs}
    if found:
        for row in connection.execute(_PICTURES_OF, {"seqs": list(found)}):
            found[row.job_seq].append(_picture(row.picture_index, row))
    return found


def _picture(index: int, row: PictureRow | Row[Any]) -> Picture:
    return Picture(
        index=index,
        state=JobState(row.state),
        step=row.step,
        latents=row.latents,
        digest=row.digest,
        size_bytes=row.size_bytes,
        details=row.details or {},
        warnings=tuple(row.warnings or ()),
        seconds=row.seconds or {},
    )
