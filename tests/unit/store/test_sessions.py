"""Sessions of browsers, on both databases."""

from __future__ import annotations

from pathlib import Path

from rockiln.store.backup import DATABASE, back_up
from rockiln.store.database import Database
from rockiln.store.sessions import SessionStore
from rockiln.store.store import Store
from unit.store.conftest import Clock


def test_a_session_opens_until_it_expires_is_closed_or_its_key_revoked(
    store: Store, clock: Clock
) -> None:
    sessions = SessionStore(store.database, clock=clock)
    token = store.keys.create("somebody", ["generate"])
    key = store.keys.find(token)
    assert key is not None
    first, second = (sessions.open(key, seconds=60) for _ in range(2))
    assert sessions.find(first) == sessions.find(second) == key
    assert sessions.find(token) is sessions.find("") is sessions.find("\udcff") is None
    sessions.close(first)
    sessions.close(first)
    assert (sessions.find(first), sessions.find(second)) == (None, key)
    clock.now += 61
    assert sessions.find(second) is None
    third = sessions.open(key, seconds=60)
    clock.now -= 61
    assert sessions.find(second) is None  # forgotten with the next sign-in
    store.keys.revoke(key.id)
    assert sessions.find(third) is None


def test_a_backup_holds_keys_and_no_sessions(store: Store, tmp_path: Path) -> None:
    token = store.keys.create("somebody", ["generate"])
    key = store.keys.find(token)
    assert key is not None
    session = store.sessions.open(key, seconds=60)
    back_up(store, tmp_path / "copy")
    copy = Database(f"sqlite:///{tmp_path / 'copy' / DATABASE}")
    assert SessionStore(copy).find(session) is None
    assert store.sessions.find(session) == key
    copy.close()
