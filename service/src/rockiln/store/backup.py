"""A copy of the whole store while the service runs.

One format for both databases: the rows as an SQLite file of this version's schema, the artefacts
beside it, and a manifest with the SHA-256 of each, written last. So a backup of one database can
be restored into the other, and no tool of a database's own is needed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.orm import Session

from rockiln import __version__
from rockiln.domain.job import DURABLE_POINT, RUNNING_STATES, JobState
from rockiln.domain.request import GenerationParameters
from rockiln.store import life
from rockiln.store.artefacts import SUFFIXES, sync_folder, write_durably
from rockiln.store.database import Database
from rockiln.store.schema import StoreRefusedError, identity_of, migrate
from rockiln.store.store import Store
from rockiln.store.tables import AttemptRow, Base, EventRow, JobRow, SessionRow

MANIFEST = "manifest.json"
DATABASE = "store.db"
FORMAT = 1
_BATCH_ROWS = 500
_CHUNK_BYTES = 1 << 20


@dataclass
class Report:
    """What a backup holds.

    Attributes:
        damaged: pictures whose file is gone or is not what was published.
    """

    jobs: int = 0
    files: int = 0
    total_bytes: int = 0
    damaged: list[str] = field(default_factory=list)


def back_up(store: Store, target: Path) -> Report:
    """Copies the store into the folder ``target``; jobs accepted before the call are all in it.

    Raises:
        StoreRefusedError: there is something in ``target`` already.
        OSError: it cannot be written.
    """
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    if any(target.iterdir()):
        raise StoreRefusedError(f"{target} is not empty: a backup wants a folder of its own")
    began = time.time()
    report = Report()
    file = target / DATABASE
    _copy_rows(store.database, file, target)
    snapshot = Database(f"sqlite:///{file}")
    try:
        with snapshot.write() as session:  # who signed out meanwhile stays so after a restore
            session.execute(delete(SessionRow))
        contents = _Contents(store, snapshot, target, report)
        contents.copy()
        identity = identity_of(snapshot)
        with snapshot.engine.connect() as connection:
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA journal_mode=DELETE")  # one file, no log beside it
            connection.exec_driver_sql("BEGIN")
    finally:
        snapshot.close()
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
    contents.files[DATABASE] = describe(file)
    report.files, report.total_bytes = (
        len(contents.files),
        sum(entry["bytes"] for entry in contents.files.values()),
    )
    manifest = {
        "format": FORMAT,
        "version": __version__,
        "identity": identity,
        "made_at": began,
        "made_from": store.database.engine.dialect.name,
        "jobs": report.jobs,
        "damaged": report.damaged,
        "files": contents.files,
    }
    # Last, so that a folder without it is known to be half a backup.
    write_durably(target / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())
    return report


def describe(file: Path) -> dict[str, Any]:
    """SHA-256 and length. Raises OSError."""
    digest = hashlib.sha256()
    length = 0
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK_BYTES):
            digest.update(chunk)
            length += len(chunk)
    return {"sha256": digest.hexdigest(), "bytes": length}


def copy_tables(source: Connection, target: Connection) -> None:
    """All rows of all tables, in an order that keeps references whole."""
    for table in Base.metadata.sorted_tables:
        result = source.execute(select(table))
        while batch := result.mappings().fetchmany(_BATCH_ROWS):
            target.execute(insert(table), [dict(row) for row in batch])


def _copy_rows(database: Database, file: Path, folder: Path) -> None:
    """The rows as of one moment; writers go on meanwhile."""
    if database.file is not None:
        with (
            sqlite3.connect(database.file) as source,
            sqlite3.connect(file) as target,
        ):
            source.backup(target)
        source.close()
        target.close()
        return
    copy = Database(f"sqlite:///{file}")
    migrate(copy, folder)
    (folder / "migrate.lock").unlink()
    with database.read() as session, copy.write() as target_session:
        copy_tables(session.connection(), target_session.connection())
    copy.close()


class _Contents:
    """The files that the rows name, and rows that fit the files that are still there."""

    def __init__(self, store: Store, snapshot: Database, target: Path, report: Report) -> None:
        self._store = store
        self._snapshot = snapshot
        self._target = target
        self._report = report
        self.files: dict[str, dict[str, Any]] = {}

    def copy(self) -> None:
        with self._snapshot.read() as session:
            seqs = list(session.scalars(select(JobRow.seq).order_by(JobRow.seq)))
        for start in range(0, len(seqs), _BATCH_ROWS):
            with self._snapshot.write() as session:
                batch = JobRow.seq.in_(seqs[start : start + _BATCH_ROWS])
                for row in session.scalars(select(JobRow).where(batch)):
                    self._copy_job(session, row)
        with self._snapshot.write() as session:
            for attempt in session.scalars(
                select(AttemptRow).where(AttemptRow.evidence.is_not(None))
            ):
                if not self._take(f"evidence/{attempt.evidence}"):
                    attempt.evidence = None
        for folder in sorted({(self._target / name).parent for name in self.files}):
            sync_folder(folder)

    def _copy_job(self, session: Session, row: JobRow) -> None:
        if row.deleted_at is not None:
            _forget(session, row)
            return
        if row.state in RUNNING_STATES:  # whoever has it will not be there after a restore
            row.state = JobState.ACCEPTED
            life.drop_lease(row)
        suffix = SUFFIXES[row.parameters["format"]]
        for digest in GenerationParameters.from_dict(row.parameters).inputs:
            name = f"inputs/{digest[:2]}/{digest}.png"
            if not self._take(name, sha256=digest):
                self._report.damaged.append(f"job {row.id}: {name}")
        for picture in row.pictures:
            picture.state = DURABLE_POINT[JobState(picture.state)]
            if picture.latents and not self._take(f"latents/{picture.latents}"):
                # Published since: the copy of the job denoises once more.
                picture.latents, picture.state, picture.step = None, JobState.ACCEPTED, 0
            if not picture.digest:
                continue
            name = f"pictures/{picture.digest[:2]}/{picture.digest}{suffix}"
            if self._take(name, sha256=picture.digest):
                continue
            if self._deleted_since(row.id):
                _forget(session, row)
                return
            self._report.damaged.append(f"job {row.id} picture {picture.index}: {name}")
        self._report.jobs += 1

    def _deleted_since(self, job_id: str) -> bool:
        live = select(JobRow.seq).where(JobRow.id == job_id, JobRow.deleted_at.is_(None))
        with self._store.database.read() as session:
            return session.scalar(live) is None

    def _take(self, name: str, *, sha256: str | None = None) -> bool:
        """False: it is not there, or not what it should be."""
        if name in self.files:
            return True
        target = self._target / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            _link_or_copy(self._store.artefacts.root / name, target)
        except FileNotFoundError:
            return False
        found = describe(target)
        if sha256 not in {None, found["sha256"]}:
            target.unlink()
            return False
        self.files[name] = found
        return True


def _forget(session: Session, row: JobRow) -> None:
    session.execute(delete(EventRow).where(EventRow.job_id == row.id))
    session.execute(delete(AttemptRow).where(AttemptRow.job_id == row.id))
    session.delete(row)


def _link_or_copy(source: Path, target: Path) -> None:
    """Artefacts are never written again once they have their name: a second name is a copy."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without links
        copy_durably(source, target)


def copy_durably(source: Path, target: Path) -> None:
    """Its bytes are on disk on return; its name once the folder is synced."""
    with source.open("rb") as read, target.open("wb") as written:
        shutil.copyfileobj(read, written, _CHUNK_BYTES)
        written.flush()
        os.fsync(written.fileno())
