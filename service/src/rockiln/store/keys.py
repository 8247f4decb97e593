"""Keys to the API. Only what a key hashes to is kept: a copy of the store opens nothing.

A key is 256 random bits, so one round of SHA-256 is enough: there is nothing to guess from.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import func, select

from rockiln.store.database import Database, retried_class
from rockiln.store.tables import KeyRow

Scope = Literal["generate", "models", "admin"]
_PREFIX = "rk_"


class UnknownKeyError(LookupError):
    """No key of that id was ever made."""


@dataclass(frozen=True)
class Key:
    """A key without its secret. ``id`` is the owner of the jobs that are made with it.

    Attributes:
        max_jobs: of its own that may wait; None for what holds for everybody.
    """

    id: str
    name: str
    scopes: tuple[str, ...]
    max_jobs: int | None
    created_at: float
    revoked_at: float | None

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or "admin" in self.scopes


@retried_class
class KeyStore:
    """Revoked keys are kept: their jobs still belong to somebody."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, name: str, scopes: Sequence[Scope], max_jobs: int | None = None) -> str:
        """The new key, which nobody can read again."""
        token = _PREFIX + secrets.token_urlsafe(32)
        row = KeyRow(
            id="k" + secrets.token_hex(5),
            name=name,
            digest=digest_of(token),
            scopes=sorted(set(scopes)),
            max_jobs=max_jobs,
            created_at=time.time(),
        )
        with self._database.write() as session:
            session.add(row)
        return token

    def find(self, token: str) -> Key | None:
        """The key that opens, unless it was revoked."""
        query = select(KeyRow).where(KeyRow.digest == digest_of(token), KeyRow.revoked_at.is_(None))
        with self._database.read() as session:
            row = session.scalar(query)
            return None if row is None else as_key(row)

    def all(self) -> list[Key]:
        """Oldest first, revoked ones too."""
        with self._database.read() as session:
            return [
                as_key(row) for row in session.scalars(select(KeyRow).order_by(KeyRow.created_at))
            ]

    def count(self) -> int:
        """Those that open."""
        query = select(func.count()).select_from(KeyRow).where(KeyRow.revoked_at.is_(None))
        with self._database.read() as session:
            return session.scalar(query) or 0

    def revoke(self, key_id: str) -> Key:
        """From here on it opens nothing. Raises UnknownKeyError."""
        with self._database.write() as session:
            row = session.get(KeyRow, key_id)
            if row is None:
                raise UnknownKeyError(f"no key {key_id!r}")
            row.revoked_at = row.revoked_at or time.time()
            return as_key(row)


def digest_of(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def as_key(row: KeyRow) -> Key:
    """Without what it hashes to."""
    return Key(
        id=row.id,
        name=row.name,
        scopes=tuple(row.scopes),
        max_jobs=row.max_jobs,
        created_at=row.created_at,
        revoked_at=row.revoked_at,
    )
