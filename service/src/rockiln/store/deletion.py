"""Deletion in two phases: a tombstone is committed, then the files go, then the rows.

A crash in between leaves a tombstone, and the next round goes on from it: what was deleted never
comes back, and no file is left that nothing names.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import delete, exists, select
from sqlalchemy.orm import Session, aliased

from rockiln.domain.job import FINAL_STATES, WAITING_STATES, JobState
from rockiln.store import life
from rockiln.store.artefacts import SUFFIXES, ArtefactStore
from rockiln.store.database import Database, retried_class
from rockiln.store.tables import AttemptRow, EventRow, JobRow, PictureRow

_ROUND_JOBS = 100
# A picture's file may stand a moment before the row that names it: it is not taken away while a
# worker may be about to publish it for another job. Longer than settings.encode_seconds.
FRESH_SECONDS = 600.0


@retried_class
class Deletion:
    """Takes jobs away for good.

    Args:
        clock: seconds since the epoch; the files' times are compared with it.
    """

    def __init__(
        self,
        database: Database,
        artefacts: ArtefactStore,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._artefacts = artefacts
        self._clock = clock

    def mark(self, job_id: str) -> None:
        """From its return on, the job is gone for every reader. One that still runs is cancelled.

        Raises:
            UnknownJobError
        """
        with self._database.write() as session:
            self.mark_row(life.find(session, job_id, lock=True))

    def mark_row(self, row: JobRow) -> None:
        """``mark`` inside somebody's transaction."""
        now = self._clock()
        row.deleted_at = now
        row.idempotency_key = None
        row.cancel_requested = True
        if row.state in WAITING_STATES:
            life.end(row, JobState.CANCELLED, now)

    def finish(self, *, fresh_seconds: float = FRESH_SECONDS) -> int:
        """Removes files and rows of marked jobs that have ended. Returns how many went."""
        marked = (
            select(JobRow.id)
            .where(JobRow.deleted_at.is_not(None), JobRow.state.in_(FINAL_STATES))
            .order_by(JobRow.seq)
            .limit(_ROUND_JOBS)
        )
        with self._database.read() as session:
            job_ids = list(session.scalars(marked))
        return sum(self._finish_one(job_id, fresh_seconds) for job_id in job_ids)

    def _finish_one(self, job_id: str, fresh_seconds: float) -> bool:
        # Inside the write lock (SQLite) or with the row held (PostgreSQL): two workers take turns.
        with self._database.write() as session:
            row = session.scalar(
                select(JobRow).where(JobRow.id == job_id).with_for_update(skip_locked=True)
            )
            if row is None:
                return False
            if not self._remove_files(session, row, fresh_seconds):
                return False
            session.execute(delete(EventRow).where(EventRow.job_id == job_id))
            session.execute(delete(AttemptRow).where(AttemptRow.job_id == job_id))
            session.delete(row)
            return True

    def _remove_files(self, session: Session, row: JobRow, fresh_seconds: float) -> bool:
        """False: a file is too young to be taken now."""
        other = aliased(PictureRow)
        suffix = SUFFIXES[row.parameters["format"]]
        for digest in {picture.digest for picture in row.pictures if picture.digest}:
            shared = session.scalar(
                select(
                    exists().where(
                        other.digest == digest,
                        other.job_seq == JobRow.seq,
                        JobRow.seq != row.seq,
                        JobRow.deleted_at.is_(None),
                    )
                )
            )
            if shared:
                continue
            path = self._artefacts.picture_file(digest, suffix)
            age = self._artefacts.age_seconds(path, self._clock())
            if age is not None and 0 <= age < fresh_seconds:
                return False
            path.unlink(missing_ok=True)
        self._artefacts.drop_latents(row.id)
        evidence = select(AttemptRow.evidence).where(
            AttemptRow.job_id == row.id, AttemptRow.evidence.is_not(None)
        )
        for name in session.scalars(evidence):
            (self._artefacts.evidence_dir / str(name)).unlink(missing_ok=True)
        return True
