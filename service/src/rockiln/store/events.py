"""The log of what happened to jobs, for whoever comes late or comes back."""

from __future__ import annotations

from sqlalchemy import func, select

from rockiln.store.database import Database, retried_class
from rockiln.store.records import EndedAttempt, Event
from rockiln.store.tables import AttemptRow, EventRow


@retried_class
class EventStore:
    """Append-only; every line is written in the transaction of the change it tells of."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def after(self, job_id: str | None, seq: int, limit: int) -> list[Event]:
        """Lines after number ``seq``, oldest first; of one job, or of all for None."""
        query = select(EventRow).where(EventRow.seq > seq).order_by(EventRow.seq).limit(limit)
        if job_id is not None:
            query = query.where(EventRow.job_id == job_id)
        with self._database.read() as session:
            return [
                Event(row.seq, row.job_id, row.kind, row.payload, row.at)
                for row in session.scalars(query)
            ]

    def last_seq(self) -> int:
        """The newest line's number; 0 while there is none."""
        with self._database.read() as session:
            return session.scalar(select(func.max(EventRow.seq))) or 0


@retried_class
class AttemptStore:
    """Attempts that ended without their pictures. Written by ``JobStore.end_attempt``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, job_id: str) -> list[EndedAttempt]:
        """Of one job, oldest first."""
        query = select(AttemptRow).where(AttemptRow.job_id == job_id).order_by(AttemptRow.seq)
        with self._database.read() as session:
            return list(map(_ended_attempt, session.scalars(query)))

    def latest(self, limit: int) -> list[EndedAttempt]:
        """Of all jobs, newest first."""
        query = select(AttemptRow).order_by(AttemptRow.seq.desc()).limit(limit)
        with self._database.read() as session:
            return list(map(_ended_attempt, session.scalars(query)))

    def counts(self) -> dict[str, int]:
        """Per code, over all that are kept."""
        query = select(AttemptRow.code, func.count()).group_by(AttemptRow.code)
        with self._database.read() as session:
            return {code: count for code, count in session.execute(query)}  # noqa: C416 (typed)


def _ended_attempt(row: AttemptRow) -> EndedAttempt:
    return EndedAttempt(
        job_id=row.job_id,
        attempt=row.attempt,
        worker=row.worker,
        code=row.code,
        stage=row.stage,
        detail=row.detail,
        rungs=row.rungs,
        evidence=row.evidence,
        at=row.at,
    )
