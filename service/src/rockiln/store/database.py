"""Connections, transactions and migrations."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.orm import Session

_WRITE = "rockiln_write"
_EVENTS = "rockiln_events"
# Any number will do, as long as everybody uses the same.
_EVENT_LOCK = 7_262_001


class Database:
    """One database. A read sees one moment; a write holds the write lock from its first line."""

    def __init__(self, url: str) -> None:
        self.engine = create_engine(url, pool_size=8, max_overflow=56)
        if self.engine.dialect.name == "sqlite":
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session whose changes are thrown away."""
        with Session(self.engine) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits at the end of the block, or rolls back if it raises."""
        engine = self.engine.execution_options(**{_WRITE: True})
        with Session(engine) as session, session.begin():
            yield session
            self._write_events(session)

    def _write_events(self, session: Session) -> None:
        """Last in the transaction, one writer at a time: who reads a number has seen all below."""
        events = session.info.pop(_EVENTS, [])
        if events and self.engine.dialect.name == "postgresql":
            session.flush()
            session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _EVENT_LOCK})
        for event_row in events:
            session.add(event_row)
            session.flush()  # one by one, in their order

    def close(self) -> None:
        self.engine.dispose()


def log_event(session: Session, event_row: object) -> None:
    """Adds a line to the log when the transaction is about to commit."""
    session.info.setdefault(_EVENTS, []).append(event_row)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver must not begin transactions by itself: _begin_sqlite does.
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",  # a commit is on disk before 202 is sent
        "busy_timeout=10000",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE: a write that starts as a read could find the database changed under it.
    write = connection.get_execution_options().get(_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def migrate(database: Database, store_dir: Path) -> None:
    """Brings the schema to this version. Safe to call from several processes at once."""
    # Probes and the served api open the store and never migrate it: they start without alembic.
    import alembic.command  # noqa: PLC0415
    import alembic.config  # noqa: PLC0415

    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with (store_dir / "migrate.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with database.engine.execution_options(**{_WRITE: True}).begin() as connection:
            config.attributes["connection"] = connection
            alembic.command.upgrade(config, "head")
