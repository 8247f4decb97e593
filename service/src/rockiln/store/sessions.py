"""Sessions of browsers that have signed in with a key. As of keys, only hashes are kept."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from sqlalchemy import delete, select

from rockiln.store.database import Database, retried_class
from rockiln.store.keys import Key, as_key, digest_of
from rockiln.store.tables import KeyRow, SessionRow


@retried_class
class SessionStore:
    """A session opens what its key opens, until it expires, is closed, or its key is revoked."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def open(self, key: Key, *, seconds: float) -> str:
        """The token of a new session. Those that have expired are forgotten."""
        now = self._clock()
        token = secrets.token_urlsafe(32)
        row = SessionRow(
            digest=digest_of(token), key_id=key.id, opened_at=now, expires_at=now + seconds
        )
        with self._database.write() as session:
            session.execute(delete(SessionRow).where(SessionRow.expires_at <= now))
            session.add(row)
        return token

    def find(self, token: str) -> Key | None:
        """The key that the session was opened with."""
        query = (
            select(KeyRow)
            .join(SessionRow, SessionRow.key_id == KeyRow.id)
            .where(
                SessionRow.digest == digest_of(token),
                SessionRow.expires_at > self._clock(),
                KeyRow.revoked_at.is_(None),
            )
        )
        with self._database.read() as session:
            row = session.scalar(query)
            return None if row is None else as_key(row)

    def close(self, token: str) -> None:
        """It opens nothing any more. One that is not known is none already."""
        with self._database.write() as session:
            session.execute(delete(SessionRow).where(SessionRow.digest == digest_of(token)))
