"""What this site has learned: rungs that work, requests that kill."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Row, bindparam, select

from rockiln.domain.ladder import Rungs
from rockiln.store.database import Database, retried_class
from rockiln.store.records import Refusal, RememberedRungs
from rockiln.store.tables import RefusalRow, RungRow

# Weight of a new figure against what is remembered: about the last ten jobs count.
_NEW_FIGURE_WEIGHT = 0.2
# Written once, as those of every call are: to build a statement takes longer than to run it.
_RUNGS = select(RungRow.__table__)
_RUNGS_OF = _RUNGS.where(RungRow.key == bindparam("key"))
_REFUSALS = select(
    RefusalRow.fingerprint,
    RefusalRow.until,
    RefusalRow.job_id,
    RefusalRow.code,
    RefusalRow.detail,
).where(RefusalRow.until > bindparam("now"))
_REFUSAL_OF = _REFUSALS.where(RefusalRow.fingerprint == bindparam("kind"))


@retried_class
class RungStore:
    """Per key (domain.ladder.RungKey) the rungs that worked last and what they took."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def get(self, key: str) -> RememberedRungs | None:
        """What is remembered of ``key``; nothing if a newer version wrote it before a rollback."""
        with self._database.look() as connection:
            row = connection.execute(_RUNGS_OF, {"key": key}).one_or_none()
        return None if row is None else _remembered(row)

    def all(self, limit: int) -> list[RememberedRungs]:
        """The keys used last, newest first."""
        query = _RUNGS.order_by(RungRow.at.desc()).limit(limit)
        with self._database.look() as connection:
            return [known for row in connection.execute(query) if (known := _remembered(row))]

    def record_success(
        self,
        key: str,
        rungs: Rungs,
        *,
        step_seconds: float | None,
        decode_seconds: float | None,
        peak_bytes: int | None,
    ) -> None:
        """A job of this key ended well on ``rungs``. Figures of other rungs are forgotten."""
        with self._database.write() as session:
            row = session.get(RungRow, key, with_for_update=True)
            if row is None:
                row = RungRow(key=key, rungs=rungs.as_dict(), successes=0)
                session.add(row)
            elif row.rungs != rungs.as_dict():
                row.rungs = rungs.as_dict()
                row.step_seconds = row.decode_seconds = row.peak_bytes = None
            row.successes += 1
            row.step_seconds = _running(row.step_seconds, step_seconds)
            row.decode_seconds = _running(row.decode_seconds, decode_seconds)
            row.peak_bytes = max(row.peak_bytes or 0, peak_bytes or 0) or None
            row.at = self._clock()


@retried_class
class RefusalStore:
    """Kinds of request that killed engines, refused for a while."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def refuse(
        self, fingerprint: str, until: float, *, job_id: str, code: str, detail: str
    ) -> None:
        """Refuses ``fingerprint`` until then, seconds since the epoch."""
        with self._database.write() as session:
            session.merge(
                RefusalRow(
                    fingerprint=fingerprint, until=until, job_id=job_id, code=code, detail=detail
                )
            )

    def active(self, fingerprint: str, now: float) -> Refusal | None:
        """The refusal that holds at ``now``, if any."""
        with self._database.look() as connection:
            of = {"kind": fingerprint, "now": now}
            row = connection.execute(_REFUSAL_OF, of).one_or_none()
        return None if row is None else Refusal(*row)

    def all(self, now: float) -> list[Refusal]:
        """Those that hold at ``now``."""
        query = _REFUSALS.order_by(RefusalRow.until)
        with self._database.look() as connection:
            return [Refusal(*row) for row in connection.execute(query, {"now": now})]


def _running(old: float | None, new: float | None) -> float | None:
    if old is None or new is None:
        return new if old is None else old
    return old + _NEW_FIGURE_WEIGHT * (new - old)


def _remembered(row: Row[Any]) -> RememberedRungs | None:
    """None: rungs of a newer version. The store only goes forward, the service also goes back."""
    rungs = Rungs.known(row.rungs)
    if rungs is None:
        return None
    return RememberedRungs(
        key=row.rung_key,
        rungs=rungs,
        successes=row.successes,
        step_seconds=row.step_seconds,
        decode_seconds=row.decode_seconds,
        peak_bytes=row.peak_bytes,
        at=row.at,
    )
