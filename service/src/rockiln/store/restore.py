"""Puts a backup back, into either database. Nothing is touched before all of it is verified."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import delete, func, select, text
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session

from rockiln.settings import Settings
from rockiln.store.artefacts import make_folder, sync_folder
from rockiln.store.backup import DATABASE, FORMAT, MANIFEST, copy_durably, copy_tables, describe
from rockiln.store.database import Database
from rockiln.store.in_use import take_alone
from rockiln.store.schema import (
    IDENTITY_FILE,
    StoreRefusedError,
    check_integrity,
    identity_of,
    migrate,
)
from rockiln.store.tables import Base, JobRow


def verify(source: Path) -> dict[str, Any]:
    """Reads every byte of a backup; returns its manifest.

    Raises:
        StoreRefusedError: it is not whole.
    """
    try:
        manifest: dict[str, Any] = json.loads((source / MANIFEST).read_text())
    except FileNotFoundError:
        raise StoreRefusedError(f"{source} has no {MANIFEST}: no backup, or half of one") from None
    except ValueError as error:
        raise StoreRefusedError(f"{source / MANIFEST} cannot be read: {error}") from error
    if manifest.get("format") != FORMAT:
        raise StoreRefusedError(
            f"{source} has format {manifest.get('format')}, this version reads {FORMAT}"
        )
    for name, entry in manifest["files"].items():
        try:
            found = describe(_inside(source, name))
        except OSError as error:
            raise StoreRefusedError(f"the backup lacks {name}: {error.strerror}") from error
        if found != entry:
            raise StoreRefusedError(f"{name} of the backup is damaged: {found} is not {entry}")
    database = _snapshot(source)
    try:
        check_integrity(database)
    except DatabaseError as error:
        raise StoreRefusedError(f"{DATABASE} of the backup cannot be read: {error.orig}") from error
    finally:
        database.close()
    return manifest


def restore(settings: Settings, source: Path, *, replace: bool = False) -> dict[str, Any]:
    """Puts the backup in ``source`` into the store that ``settings`` name. Returns its manifest.

    Args:
        replace: move what is there aside (SQLite and artefacts) or drop it (PostgreSQL's rows).

    Raises:
        StoreRefusedError: the backup is damaged, the service runs, or the target is not empty.
    """
    manifest = verify(source)
    lock = take_alone(settings.store_dir)
    if lock is None:
        raise StoreRefusedError(
            f"the store in {settings.store_dir} is in use: stop the service first"
        )
    with lock:
        database = Database(settings.resolve_database_url())
        try:
            _refuse_others(database)
            _make_room(settings, database, replace=replace)
            _put_artefacts(settings.artefacts_dir, source, manifest)
            _put_rows(settings, database, source)
        finally:
            database.close()
    return manifest


def _snapshot(source: Path) -> Database:
    """Read-only, and nothing is written beside it: a backup may lie on a disk that cannot be."""
    file = quote(str((source / DATABASE).resolve()))
    return Database(f"sqlite:///file:{file}?mode=ro&immutable=1&uri=true")


def _inside(source: Path, name: str) -> Path:
    path = source / name
    if not path.resolve().is_relative_to(source.resolve()):
        raise StoreRefusedError(f"the manifest names a file outside the backup: {name}")
    return path


def _refuse_others(database: Database) -> None:
    """A service on another host holds no lock here, but connections."""
    if database.is_sqlite:
        return
    query = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name = 'rockiln' AND pid <> pg_backend_pid()"
    )
    with database.engine.connect() as connection:
        if connection.scalar(query):
            raise StoreRefusedError(f"{database.shown} is in use: stop the service first")


def _make_room(settings: Settings, database: Database, *, replace: bool) -> None:
    artefacts = settings.artefacts_dir
    held = any(path.is_file() for path in artefacts.glob("**/*") if path.name != IDENTITY_FILE)
    if not held and not _has_jobs(settings, database):
        _move_aside(settings, database, into=None)
        return
    if not replace:
        raise StoreRefusedError(
            f"{settings.data_dir} holds jobs or pictures already; --replace moves them aside"
        )
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    _move_aside(settings, database, into=settings.data_dir / f"replaced-{stamp}")


def _has_jobs(settings: Settings, database: Database) -> bool:
    if database.file is not None and not database.file.exists():
        return False
    migrate(database, settings.store_dir)
    with database.read() as session:
        return bool(session.scalar(select(func.count()).select_from(JobRow)))


def _move_aside(settings: Settings, database: Database, *, into: Path | None) -> None:
    """``into`` None: there is nothing worth keeping."""
    database.close()
    (settings.artefacts_dir / IDENTITY_FILE).unlink(missing_ok=True)
    if into is not None:
        make_folder(into)
        if settings.artefacts_dir.exists():
            settings.artefacts_dir.rename(into / settings.artefacts_dir.name)
    if database.file is not None:
        for suffix in ("", "-wal", "-shm"):
            part = database.file.with_name(database.file.name + suffix)
            if part.exists() and into is not None:
                part.rename(into / part.name)
            part.unlink(missing_ok=True)
    sync_folder(settings.data_dir)


def _put_artefacts(root: Path, source: Path, manifest: dict[str, Any]) -> None:
    folders = {root}
    for name in ("pictures", "inputs", "latents"):
        make_folder(root / name)
    for name in manifest["files"]:
        if name != DATABASE:
            target = root / name
            make_folder(target.parent)
            copy_durably(source / name, target)
            folders.add(target.parent)
    for folder in sorted(folders):
        sync_folder(folder)


def _put_rows(settings: Settings, database: Database, source: Path) -> None:
    """Last: a restore that was cut short leaves files that no store owns, and starts anew."""
    identity_file = settings.artefacts_dir / IDENTITY_FILE
    if database.file is not None:
        copied = database.file.with_name(f".restoring-{database.file.name}")
        copy_durably(source / DATABASE, copied)
        copied.rename(database.file)
        sync_folder(database.file.parent)
        migrate(database, settings.store_dir)
    else:
        migrate(database, settings.store_dir)
        snapshot = _snapshot(source)
        with snapshot.read() as rows, database.write() as session:
            for table in reversed(Base.metadata.sorted_tables):
                session.execute(delete(table))
            copy_tables(rows.connection(), session.connection())
            _set_counters(session)
        snapshot.close()
    identity_file.write_text(f"{identity_of(database)}\n")
    with identity_file.open("rb") as opened:
        os.fsync(opened.fileno())
    sync_folder(settings.artefacts_dir)


def _set_counters(session: Session) -> None:
    """New rows are numbered after those that came with their numbers."""
    for table in ("job", "event", "attempt"):
        session.execute(
            text(
                f"SELECT setval(pg_get_serial_sequence('{table}', 'seq'), "  # noqa: S608 (ours)
                f"(SELECT coalesce(max(seq), 0) + 1 FROM {table}), false)"
            )
        )
