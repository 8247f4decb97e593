"""Small things that are remembered by name."""

from __future__ import annotations

from rockiln.store.database import Database, retried_class
from rockiln.store.tables import FactRow


@retried_class
class FactStore:
    """Names have at most 32 characters."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, name: str) -> str | None:
        with self._database.read() as session:
            row = session.get(FactRow, name)
            return None if row is None else row.value

    def put(self, name: str, value: str) -> None:
        with self._database.write() as session:
            session.merge(FactRow(name=name, value=value))
