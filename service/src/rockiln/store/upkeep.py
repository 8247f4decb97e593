"""What a store needs once a minute: deletions finished, old things dropped, the log kept short."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy import Select, delete, func, or_, select, text

from rockiln.domain.job import FINAL_STATES
from rockiln.domain.request import input_digests
from rockiln.settings import Settings
from rockiln.store.artefacts import ArtefactStore
from rockiln.store.database import Database, retried_class
from rockiln.store.deletion import FRESH_SECONDS, Deletion
from rockiln.store.tables import AttemptRow, EventRow, JobRow, PictureRow, RefusalRow

log = structlog.get_logger()

_DAY_SECONDS = 86_400.0
_ROUND_JOBS = 100
_ROUND_EVENTS = 10_000
# SQLite folds its write-ahead log into the database at 4 MiB; a log this long means that a reader
# has kept it from doing so.
WAL_WATCH_BYTES = 64 << 20


@dataclass(frozen=True)
class Retention:
    """What is kept. None is for ever, or without bound.

    Attributes:
        jobs_days: ended jobs, with their pictures.
        picture_bytes: of all pictures together; the oldest jobs go first.
        events_days: the log of jobs that have ended.
        evidence_days: what is known of deaths.
    """

    jobs_days: float | None = None
    picture_bytes: int | None = None
    events_days: float | None = 30.0
    evidence_days: float | None = 30.0

    @classmethod
    def of(cls, settings: Settings) -> Retention:
        return cls(
            settings.keep_jobs_days,
            settings.keep_picture_bytes,
            settings.keep_events_days,
            settings.keep_evidence_days,
        )


@dataclass(frozen=True)
class Done:
    """What one round did."""

    jobs_expired: int = 0
    jobs_deleted: int = 0
    events_dropped: int = 0
    evidence_dropped: int = 0
    latents_dropped: int = 0
    inputs_dropped: int = 0
    wal_bytes: int = 0


@retried_class
class Upkeep:
    """One round per call; a round is bounded, what is left waits for the next one.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        database: Database,
        artefacts: ArtefactStore,
        deletion: Deletion,
        retention: Retention,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._artefacts = artefacts
        self._deletion = deletion
        self._retention = retention
        self._clock = clock

    def run(self) -> Done:
        """One round. Any worker may run it at any time, and several at once."""
        done = Done(
            jobs_expired=self._expire_old() + self._expire_beyond_bytes(),
            jobs_deleted=self._deletion.finish(),
            events_dropped=self._drop_events(),
            evidence_dropped=self._drop_evidence(),
            latents_dropped=self._drop_latents(),
            inputs_dropped=self._drop_inputs(),
            wal_bytes=self._checkpoint(),
        )
        self._drop_refusals()
        self._artefacts.sweep()
        return done

    def _before(self, days: float) -> float:
        return self._clock() - days * _DAY_SECONDS

    def _expire_old(self) -> int:
        days = self._retention.jobs_days
        if days is None:
            return 0
        query = (
            select(JobRow)
            .where(
                JobRow.state.in_(FINAL_STATES),
                JobRow.deleted_at.is_(None),
                JobRow.ended_at < self._before(days),
            )
            .order_by(JobRow.seq)
            .limit(_ROUND_JOBS)
        )
        return self._mark(query)

    def _expire_beyond_bytes(self) -> int:
        limit = self._retention.picture_bytes
        if limit is None:
            return 0
        kept = select(func.sum(PictureRow.size_bytes)).where(
            PictureRow.job_seq == JobRow.seq, JobRow.deleted_at.is_(None)
        )
        oldest = (
            select(JobRow.seq, func.sum(PictureRow.size_bytes))
            .where(
                PictureRow.job_seq == JobRow.seq,
                JobRow.state.in_(FINAL_STATES),
                JobRow.deleted_at.is_(None),
                PictureRow.size_bytes.is_not(None),
            )
            .group_by(JobRow.seq)
            .order_by(JobRow.seq)
            .limit(_ROUND_JOBS)
        )
        with self._database.read() as session:
            over = (session.scalar(kept) or 0) - limit
            chosen: list[int] = []
            for seq, size_bytes in session.execute(oldest):
                if over <= 0:
                    break
                chosen.append(seq)
                over -= size_bytes or 0
        return self._mark(select(JobRow).where(JobRow.seq.in_(chosen))) if chosen else 0

    def _mark(self, query: Select[JobRow]) -> int:
        with self._database.write() as session:
            rows = list(session.scalars(query.with_for_update(skip_locked=True)))
            for row in rows:
                self._deletion.mark_row(row)
            return len(rows)

    def _drop_events(self) -> int:
        days = self._retention.events_days
        if days is None:
            return 0
        ended = select(JobRow.id).where(JobRow.state.in_(FINAL_STATES))
        with self._database.read() as session:
            seqs = list(
                session.scalars(
                    select(EventRow.seq)
                    .where(EventRow.at < self._before(days), EventRow.job_id.in_(ended))
                    .order_by(EventRow.seq)
                    .limit(_ROUND_EVENTS)
                )
            )
        if seqs:
            with self._database.write() as session:
                session.execute(delete(EventRow).where(EventRow.seq.in_(seqs)))
        return len(seqs)

    def _drop_evidence(self) -> int:
        days, folder = self._retention.evidence_days, self._artefacts.evidence_dir
        if days is None or not folder.is_dir():
            return 0
        old = [
            path
            for path in folder.glob("*.json")
            if (self._artefacts.age_seconds(path, self._clock()) or 0.0) > days * _DAY_SECONDS
        ]
        if old:
            names = [path.name for path in old]
            with self._database.write() as session:
                for row in session.scalars(
                    select(AttemptRow).where(AttemptRow.evidence.in_(names))
                ):
                    row.evidence = None
        for path in old:
            path.unlink(missing_ok=True)
        return len(old)

    def _drop_latents(self) -> int:
        """Latents of jobs that have ended or are no more: their worker died before it did so."""
        found = self._artefacts.latents_jobs()
        if not found:
            return 0
        with self._database.read() as session:
            needed = set(
                session.scalars(
                    select(JobRow.id).where(JobRow.id.in_(found), JobRow.state.not_in(FINAL_STATES))
                )
            )
        dropped = [job_id for job_id in found if job_id not in needed]
        for job_id in dropped:
            self._artefacts.drop_latents(job_id)
        return len(dropped)

    def _drop_inputs(self) -> int:
        """Pictures of clients that no kept job names: deleted with it, or never accepted."""
        old = self._artefacts.old_inputs(self._clock(), FRESH_SECONDS)
        if not old:
            return 0
        names = ("image", "controlnets")
        any_of_them = or_(*(JobRow.parameters[name].as_string().is_not(None) for name in names))
        with self._database.read() as session:
            needed = {
                digest
                for said in session.scalars(select(JobRow.parameters).where(any_of_them))
                for digest in input_digests(said)
            }
        dropped = 0
        for path in old:
            age = self._artefacts.age_seconds(path, self._clock())
            # Looked at again: it is young if a client has sent it meanwhile.
            if path.stem not in needed and age is not None and age > FRESH_SECONDS:
                path.unlink(missing_ok=True)
                dropped += 1
        return dropped

    def _drop_refusals(self) -> None:
        with self._database.read() as session:
            over = list(
                session.scalars(
                    select(RefusalRow.fingerprint).where(RefusalRow.until < self._clock())
                )
            )
        if over:
            with self._database.write() as session:
                session.execute(delete(RefusalRow).where(RefusalRow.fingerprint.in_(over)))

    def _checkpoint(self) -> int:
        """Folds the write-ahead log in, without waiting for anybody. Returns its length."""
        file = self._database.file
        if file is None:
            return 0
        with self._database.engine.connect() as connection:
            connection.exec_driver_sql("COMMIT")  # a checkpoint stands outside any transaction
            connection.execute(text("PRAGMA wal_checkpoint(PASSIVE)"))
            connection.exec_driver_sql("BEGIN")
        wal = file.with_name(f"{file.name}-wal")
        length = wal.stat().st_size if wal.exists() else 0
        if length > WAL_WATCH_BYTES:
            log.warning("store.log_grows", wal_bytes=length)
        return length
