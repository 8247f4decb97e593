"""What was asked of the fetcher, which commits are pinned, which licences were accepted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from rockiln.store.database import Database, retried_class
from rockiln.store.model_tables import LicenceAcceptanceRow, ModelLockRow, ModelTaskRow
from rockiln.store.tables import FactRow

TaskKind = Literal["pull", "verify", "remove"]
TaskState = Literal["asked", "running", "done", "failed", "cancelled"]
# Why a task failed, where that decides what is shown: the hub wants a licence accepted, files are
# not what they should be, or anything else (the detail says what).
TaskReason = Literal["gated", "broken", "failed"]
_OPEN: tuple[TaskState, ...] = ("asked", "running")
_FETCHER = "fetcher"


@dataclass(frozen=True)
class ModelTask:
    """One task. ``deaths`` counts the children that died at it since bytes last arrived."""

    seq: int
    model_id: str
    kind: TaskKind
    state: TaskState
    owner: str
    detail: str
    reason: TaskReason | None
    bytes_total: int | None
    bytes_done: int
    cancel_requested: bool
    deaths: int
    asked_at: float
    started_at: float | None
    ended_at: float | None

    @property
    def ended(self) -> bool:
        return self.state not in _OPEN


@dataclass(frozen=True)
class ModelLock:
    """A commit, and path → SHA-256 of its files as they were taken first."""

    commit: str
    files: dict[str, str]


@dataclass(frozen=True)
class Acceptance:
    """A licence that somebody accepted. ``commit`` is that of the text, None if not known."""

    model_id: str
    licence: str
    page: str
    commit: str | None
    owner: str
    at: float


@dataclass(frozen=True)
class FetcherSign:
    """What the fetcher last said of itself; whether it has a token, never which."""

    at: float
    has_token: bool
    endpoint: str


@retried_class
class ModelTaskStore:
    """At most one open task a model."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def ask(self, model_id: str, kind: TaskKind, *, owner: str) -> ModelTask:
        """A new task, or the open one of that model, which may be of another kind."""
        with self._database.write() as session:
            self._database.take_turn(session)
            row = _open_row(session, model_id)
            if row is None:
                row = ModelTaskRow(
                    model_id=model_id, kind=kind, owner=owner, asked_at=self._clock()
                )
                session.add(row)
                session.flush()
            return _task(row)

    def latest(self) -> dict[str, ModelTask]:
        """The last task of each model that ever had one."""
        query = select(ModelTaskRow).order_by(ModelTaskRow.seq)
        with self._database.read() as session:
            return {row.model_id: _task(row) for row in session.scalars(query)}

    def open_tasks(self) -> list[ModelTask]:
        """Those that are not ended, in the order of asking."""
        query = select(ModelTaskRow).where(ModelTaskRow.state.in_(_OPEN)).order_by(ModelTaskRow.seq)
        with self._database.read() as session:
            return list(map(_task, session.scalars(query)))

    def get(self, seq: int) -> ModelTask | None:
        with self._database.read() as session:
            row = session.get(ModelTaskRow, seq)
            return None if row is None else _task(row)

    def cancel(self, model_id: str) -> ModelTask | None:
        """Asks for the end of an open task; one that waits ends at once. None if none is open."""
        with self._database.write() as session:
            self._database.take_turn(session)
            row = _open_row(session, model_id)
            if row is None:
                return None
            row.cancel_requested = True
            if row.state == "asked":
                row.state, row.ended_at = "cancelled", self._clock()
            return _task(row)

    def start(self, seq: int) -> ModelTask | None:
        """The task as running; None if it has ended."""
        with self._database.write() as session:
            row = _locked(session, seq)
            if row is None:
                return None
            row.state = "running"
            row.started_at = row.started_at or self._clock()
            return _task(row)

    def progress(self, seq: int, bytes_done: int, *, bytes_total: int | None = None) -> bool:
        """Notes how far a task is. False: it is to end."""
        with self._database.write() as session:
            row = _locked(session, seq)
            if row is None or row.cancel_requested:
                return False
            if bytes_done > row.bytes_done:
                row.deaths = 0
            row.bytes_done = bytes_done
            row.bytes_total = bytes_total if bytes_total is not None else row.bytes_total
            return True

    def note_death(self, seq: int) -> int:
        """A child died at the task. How many did since bytes last arrived."""
        with self._database.write() as session:
            row = _locked(session, seq)
            if row is None:
                return 0
            row.deaths += 1
            return row.deaths

    def end(
        self,
        seq: int,
        state: Literal["done", "failed", "cancelled"],
        detail: str = "",
        *,
        reason: TaskReason | None = None,
    ) -> None:
        """Ends an open task; an ended one stays as it is."""
        with self._database.write() as session:
            row = _locked(session, seq)
            if row is not None:
                row.state, row.detail, row.reason = state, detail, reason
                row.ended_at = self._clock()

    def lock(self, repository: str, wanted: ModelLock, *, ruled: bool = False) -> ModelLock:
        """The pin of a repository: the first one stays, files that it lacks are added.

        Args:
            ruled: the catalogue names this commit, and so another one gives way.
        """
        with self._database.write() as session:
            self._database.take_turn(session)
            row = session.get(ModelLockRow, repository)
            if row is None:
                row = ModelLockRow(
                    repository=repository,
                    commit_id=wanted.commit,
                    files=wanted.files,
                    at=self._clock(),
                )
                session.add(row)
            elif row.commit_id == wanted.commit:
                row.files = {**wanted.files, **row.files}
            elif ruled:
                row.commit_id, row.files, row.at = wanted.commit, wanted.files, self._clock()
            return ModelLock(row.commit_id, dict(row.files))

    def locks(self) -> dict[str, ModelLock]:
        """Repository → its pin."""
        with self._database.read() as session:
            rows = session.scalars(select(ModelLockRow))
            return {row.repository: ModelLock(row.commit_id, dict(row.files)) for row in rows}

    def accept_licence(
        self, model_id: str, *, licence: str, page: str, commit: str | None, owner: str
    ) -> None:
        """Writes down who accepted what."""
        with self._database.write() as session:
            session.add(
                LicenceAcceptanceRow(
                    model_id=model_id,
                    licence=licence,
                    page=page,
                    commit_id=commit,
                    owner=owner,
                    at=self._clock(),
                )
            )

    def acceptances(self) -> dict[str, Acceptance]:
        """The last acceptance for each model."""
        query = select(LicenceAcceptanceRow).order_by(LicenceAcceptanceRow.seq)
        with self._database.read() as session:
            return {
                row.model_id: Acceptance(
                    row.model_id, row.licence, row.page, row.commit_id, row.owner, row.at
                )
                for row in session.scalars(query)
            }

    def sign(self, *, has_token: bool, endpoint: str) -> None:
        """The fetcher says that it is there."""
        said = json.dumps(asdict(FetcherSign(self._clock(), has_token, endpoint)))
        with self._database.write() as session:
            session.merge(FactRow(name=_FETCHER, value=said))

    def fetcher(self) -> FetcherSign | None:
        """Its last sign; None if there never was one."""
        with self._database.read() as session:
            row = session.get(FactRow, _FETCHER)
        return None if row is None else FetcherSign(**json.loads(row.value))


def _open_row(session: Session, model_id: str) -> ModelTaskRow | None:
    query = (
        select(ModelTaskRow)
        .where(ModelTaskRow.model_id == model_id, ModelTaskRow.state.in_(_OPEN))
        .with_for_update()
    )
    return session.scalars(query).first()


def _locked(session: Session, seq: int) -> ModelTaskRow | None:
    """An open task, held until the commit."""
    row = session.get(ModelTaskRow, seq, with_for_update=True)
    return None if row is None or row.state not in _OPEN else row


def _task(row: ModelTaskRow) -> ModelTask:
    said: dict[str, Any] = {name: getattr(row, name) for name in ModelTask.__dataclass_fields__}
    return ModelTask(**said)
