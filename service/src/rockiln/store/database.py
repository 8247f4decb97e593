"""Connections and transactions, the same for SQLite and PostgreSQL."""

from __future__ import annotations

import functools
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import structlog
from sqlalchemy import Connection, create_engine, event, insert, make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from rockiln.store.postgresql import ANSWER_SECONDS, CONNECT_ARGUMENTS, bounded_connect
from rockiln.store.tables import EventRow

log = structlog.get_logger()

P = ParamSpec("P")
T = TypeVar("T")

WRITE = "rockiln_write"
_EVENTS = "rockiln_events"
_INSERT_EVENT = insert(EventRow)
# Any numbers will do, as long as everybody uses the same.
_EVENT_LOCK = 7_262_001
MIGRATION_LOCK = 7_262_002
# Waits between tries of a transaction whose connection was lost: 5 s of outage are sat out.
RETRY_PAUSES_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0)
# A serialization failure, a deadlock, a lock that another holds, a server that is starting or
# stopping: nothing was changed.
_PASSING_STATES = frozenset({"40001", "40P01", "55P03", "57P01", "57P02", "57P03", "53300"})


class Database:
    """One database. A read sees one moment; a write is all there or not at all.

    On SQLite a write holds the write lock from its first line.

    Args:
        answer_seconds: a server that says nothing for so long is left for another connection.
    """

    def __init__(self, url: str, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        parsed = make_url(url)
        if parsed.get_backend_name() == "postgresql":
            self.engine = create_engine(
                parsed.set(drivername="postgresql+psycopg"),
                pool_size=8,
                max_overflow=56,
                pool_timeout=10,
                pool_pre_ping=True,
                connect_args=CONNECT_ARGUMENTS,
                hide_parameters=True,  # prompts and keys belong in no log
            )
            event.listen(self.engine, "do_connect", bounded_connect(answer_seconds))
        else:
            self.engine = create_engine(url, pool_size=8, max_overflow=56, hide_parameters=True)
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        self._writing = self.engine.execution_options(**{WRITE: True})
        self._reading = self.engine
        if not self.is_sqlite:
            self._reading = self.engine.execution_options(isolation_level="REPEATABLE READ")
        # SQLite's own wait for the write lock knows no turns: beside many writers one may never
        # get it. The writers of a process wait here, so that only processes meet there.
        self._writer = threading.Lock() if self.is_sqlite else nullcontext()

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @property
    def file(self) -> Path | None:
        """Where SQLite keeps it."""
        name = self.engine.url.database
        return Path(name) if self.is_sqlite and name else None

    @property
    def shown(self) -> str:
        """Its address without the password."""
        return self.engine.url.render_as_string(hide_password=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session whose changes are thrown away."""
        with Session(self._reading, autoflush=False) as session:
            yield session

    @contextmanager
    def look(self) -> Iterator[Connection]:
        """As ``read``, for plain rows: where a caller waits, a session takes half of the time."""
        with self._reading.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits at the end of the block, or rolls back if it raises.

        A connection that is lost while committing leaves open what became of it. The server knows:
        if it did commit, this ends well; if not, the error says so and the block can be repeated.
        """
        with self._writer, Session(self._writing, expire_on_commit=False) as session:
            session.begin()
            yield session
            session.flush()
            self._write_events(session)
            number = self._transaction_number(session)
            try:
                session.commit()
            except DBAPIError as error:
                if number is None or not connection_lost(error):
                    raise
                log.warning("store.commit_unsure", reason=type(error.orig).__name__)
                if not self._was_committed(number):
                    raise

    def take_turn(self, session: Session) -> None:
        """One writer at a time from here to the commit. On SQLite that is so from the start."""
        if not self.is_sqlite:
            session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _EVENT_LOCK})

    def _write_events(self, session: Session) -> None:
        """Last in the transaction, one writer at a time: who reads a number has seen all below."""
        events = session.info.pop(_EVENTS, [])
        if events:
            self.take_turn(session)
            session.connection().execute(_INSERT_EVENT, events)  # in their order

    def _transaction_number(self, session: Session) -> str | None:
        if self.is_sqlite:
            return None
        number = session.scalar(text("SELECT pg_current_xact_id_if_assigned()::text"))
        return None if number is None else str(number)

    def _was_committed(self, number: str) -> bool:
        """What became of a transaction. Raises OperationalError if the server does not tell."""
        query = text("SELECT pg_xact_status(CAST(:number AS xid8))")
        last: DBAPIError | None = None
        for pause in RETRY_PAUSES_SECONDS:
            time.sleep(pause)
            try:
                with self.engine.connect() as connection:
                    status = connection.scalar(query, {"number": number})
            except DBAPIError as error:
                if not connection_lost(error):
                    raise
                last = error
                continue
            if status != "in progress":
                return bool(status == "committed")
            self._end_transaction(number)
        raise CommitUnknownError("the server does not tell what became of a change") from last

    def _end_transaction(self, number: str) -> None:
        """Of a line that is lost and that the server has not missed yet; it keeps its locks."""
        query = text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE backend_xid = CAST(CAST(:number AS xid8) AS xid)"
        )
        with self.engine.connect() as connection:
            connection.execute(query, {"number": number})

    def close(self) -> None:
        self.engine.dispose()


class CommitUnknownError(OperationalError):
    """Whether a change was made is not known; it is not repeated."""

    def __init__(self, detail: str) -> None:
        super().__init__(None, None, RuntimeError(detail))


def retrying(method: Callable[P, T]) -> Callable[P, T]:
    """For methods that change the database in their last transaction, or not at all.

    They are repeated a bounded number of times where the database was out of reach or asks for it:
    nothing was changed then. An error that stays is raised.
    """

    @functools.wraps(method)
    def repeated(*args: P.args, **kwargs: P.kwargs) -> T:
        for pause in RETRY_PAUSES_SECONDS:
            try:
                return method(*args, **kwargs)
            except DBAPIError as error:
                if not connection_lost(error):
                    raise
                log.warning("store.repeats", of=method.__name__, reason=type(error.orig).__name__)
            time.sleep(pause)
        return method(*args, **kwargs)

    return repeated


def retried_class(cls: type[T]) -> type[T]:
    """Makes every public method of the class ``retrying``."""
    for name, member in list(vars(cls).items()):
        if not name.startswith("_") and callable(member):
            setattr(cls, name, retrying(member))
    return cls


def connection_lost(error: DBAPIError) -> bool:
    """Whether the transaction failed for its connection or its company, not for what it does."""
    if isinstance(error, CommitUnknownError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    if isinstance(error, OperationalError) and type(error.orig).__module__.startswith("psycopg"):
        # Without a state it is the client's own word: refused, reset, timed out.
        return state is None or state in _PASSING_STATES or state.startswith("08")
    if isinstance(error.orig, sqlite3.OperationalError):
        # The low byte is the kind: SQLITE_BUSY_SNAPSHOT and _RECOVERY are busy, too.
        return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
    return error.connection_invalidated or state in _PASSING_STATES


def log_event(session: Session, **columns: Any) -> None:
    """Adds a line to the log when the transaction is about to commit."""
    session.info.setdefault(_EVENTS, []).append(columns)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver must not begin transactions by itself: _begin_sqlite does.
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",  # a commit is on disk before 202 is sent
        "busy_timeout=3000",  # then ``retrying`` tries again
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE: a write that starts as a read could find the database changed under it.
    write = connection.get_execution_options().get(WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
