"""A store on a fresh database, with a clock that the test turns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rockiln.settings import Settings
from rockiln.store.boot_clock import Tick
from rockiln.store.jobs import JobStore
from rockiln.store.store import Store


@dataclass
class Clock:
    """Seconds since the epoch, moved by hand."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now

    def tick(self) -> Tick:
        """The boot clock, which goes with it."""
        return Tick("this boot", self.now)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def settings(tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    url = None
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").new_database()
    return Settings(public_dir=tmp_path, data_dir=tmp_path / "data", database_url=url)


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    store = Store(Settings(public_dir=tmp_path, data_dir=tmp_path / "data"))
    store.prepare()
    yield store
    store.close()


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    store = Store(settings)
    store.prepare()
    yield store
    store.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def jobs(store: Store, clock: Clock) -> JobStore:
    return JobStore(store.database, clock=clock, tick=clock.tick)
