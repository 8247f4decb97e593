"""Writers that meet: in one process they take turns, between processes they try again."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import event, text

from rockiln.store.database import Database, retrying


def test_a_change_is_tried_again_while_another_process_writes(tmp_path: Path) -> None:
    """Found by 40 submissions on a busy machine: "database is locked" went out as an error."""
    file = tmp_path / "store.sqlite3"
    database = Database(f"sqlite:///{file}")

    @event.listens_for(database.engine, "connect")
    def impatient(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA busy_timeout=0").close()

    with database.write() as session:
        session.execute(text("CREATE TABLE thing (name TEXT)"))
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    tries = 0

    @retrying
    def change() -> None:
        nonlocal tries
        tries += 1
        if tries == 3:
            other.rollback()
        with database.write() as session:
            session.execute(text("INSERT INTO thing VALUES ('one')"))

    change()
    assert tries == 3
    with database.read() as session:
        assert session.scalars(text("SELECT name FROM thing")).all() == ["one"]
    other.close()
    database.close()
