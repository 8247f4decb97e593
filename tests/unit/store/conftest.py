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


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(public_dir=tmp_path, data_dir=tmp_path / "data")


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
