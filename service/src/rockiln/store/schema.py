"""Brings the schema to this version; says who the store is and whether it is whole."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from rockiln.store.artefacts import sync_folder, write_durably
from rockiln.store.database import MIGRATION_LOCK, WRITE, Database, retrying
from rockiln.store.tables import FactRow

IDENTITY_FILE = "store-identity"
_FORMER = "former-"
_IDENTITY, _BOUND = "identity", "artefacts_bound"
_BACKUP_HINT = "stop the service and restore a backup: rockiln restore"


class StoreRefusedError(RuntimeError):
    """This store and these files must not be used as they are; the text says what to do."""


@retrying
def migrate(database: Database, store_dir: Path) -> None:
    """Brings the schema to this version. Safe to call from several processes at once."""
    # Probes and the served api open the store and never migrate it: they start without alembic.
    import alembic.command  # noqa: PLC0415
    import alembic.config  # noqa: PLC0415
    from alembic.migration import MigrationContext  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with _alone(database, store_dir) as connection:
        config.attributes["connection"] = connection
        former = MigrationContext.configure(connection).get_current_revision()
        if former not in {None, ScriptDirectory.from_config(config).get_current_head()}:
            _keep_copy(database, store_dir / f"{_FORMER}{former}.db")
        alembic.command.upgrade(config, "head")


def _keep_copy(database: Database, target: Path) -> None:
    """Of an SQLite file before its schema moves on, in place of the copy before that.

    A migration is all there or not at all; the copy is for one that does the wrong thing.

    Raises:
        StoreRefusedError: there is no room for it.
    """
    if database.file is None:
        return
    free_bytes = shutil.disk_usage(target.parent).free
    wanted_bytes = 2 * database.file.stat().st_size  # the migration itself writes, too
    if free_bytes < wanted_bytes:
        raise StoreRefusedError(
            f"{target.parent} has {free_bytes} bytes free; before its schema moves on the store is "
            f"copied, which takes {wanted_bytes}. Make room and start again; nothing was changed"
        )
    part = target.with_suffix(".part")
    part.unlink(missing_ok=True)
    with closing(sqlite3.connect(database.file)) as source, closing(sqlite3.connect(part)) as copy:
        source.backup(copy)
    with part.open("rb") as written:
        os.fsync(written.fileno())
    part.rename(target)
    for older in set(target.parent.glob(f"{_FORMER}*.db")) - {target}:
        older.unlink()
    sync_folder(target.parent)


@retrying
def bind_artefacts(database: Database, store_dir: Path, artefacts_dir: Path) -> str:
    """Ties the folder to the store for good; returns the store's identity.

    Several workers on several disks could otherwise publish into a folder that nobody reads.

    Raises:
        StoreRefusedError: the folder belongs to another store, or is empty where it should not be.
    """
    file = artefacts_dir / IDENTITY_FILE
    # Committed before the file is written: a crash in between must not leave a stranger's file.
    with _alone(database, store_dir) as connection, Session(connection) as session:
        identity = _fact(session, _IDENTITY)
        if identity is None:
            identity = uuid.uuid4().hex
            session.add(FactRow(name=_IDENTITY, value=identity))
            session.flush()
    with _alone(database, store_dir) as connection, Session(connection) as session:
        found = file.read_text().strip() if file.exists() else None
        bound = _fact(session, _BOUND) is not None
        if found is None and bound:
            raise StoreRefusedError(
                f"{artefacts_dir} is not the artefact folder of this store: it has no "
                f"{IDENTITY_FILE}. Is its disk mounted? If the folder was moved by hand and is "
                f"the right one, write {identity} into {file}"
            )
        if found not in {None, identity}:
            raise StoreRefusedError(
                f"{artefacts_dir} belongs to store {found}, and {database.shown} is store "
                f"{identity}. Point data_dir or the database address at the one that belongs"
            )
        if found is None:
            write_durably(file, identity.encode() + b"\n")
        if not bound:
            session.add(FactRow(name=_BOUND, value="yes"))
            session.flush()
    return identity


def identity_of(database: Database) -> str:
    """Of a store that was opened before. Raises StoreRefusedError."""
    with database.read() as session:
        identity = _fact(session, _IDENTITY)
    if identity is None:
        raise StoreRefusedError(f"{database.shown} has no identity: it was never opened")
    return identity


def check_integrity(database: Database) -> None:
    """Reads the whole of an SQLite file. PostgreSQL looks after its own.

    Raises:
        StoreRefusedError: it is damaged.
    """
    if not database.is_sqlite:
        return
    with database.engine.connect() as connection:
        said = list(connection.scalars(text("PRAGMA integrity_check(5)")))
    if said != ["ok"]:
        raise StoreRefusedError(f"{database.shown} is damaged ({'; '.join(said)}). {_BACKUP_HINT}")


@contextmanager
def _alone(database: Database, store_dir: Path) -> Iterator[Connection]:
    """A write transaction that one process at a time has."""
    with (store_dir / "migrate.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with database.engine.execution_options(**{WRITE: True}).begin() as connection:
            if not database.is_sqlite:  # others may share it from other hosts
                connection.execute(
                    text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK}
                )
            yield connection


def _fact(session: Session, name: str) -> str | None:
    row = session.get(FactRow, name)
    return None if row is None else row.value
