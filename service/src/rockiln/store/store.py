"""One object that opens everything below the store."""

from __future__ import annotations

from rockiln.settings import Settings
from rockiln.store.artefacts import ArtefactStore
from rockiln.store.database import Database, migrate
from rockiln.store.events import AttemptStore, EventStore
from rockiln.store.experience import RefusalStore, RungStore
from rockiln.store.jobs import JobStore
from rockiln.store.wake import Audience, WakeReceiver, wake
from rockiln.store.workers import WorkerStore


class Store:
    """Everything that is kept of one site, and its wake-ups."""

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.store_dir
        self._wake_folder = settings.store_dir / "wake"
        self.database = Database(settings.database_url)
        self.jobs = JobStore(self.database)
        self.workers = WorkerStore(self.database)
        self.events = EventStore(self.database)
        self.attempts = AttemptStore(self.database)
        self.rungs = RungStore(self.database)
        self.refusals = RefusalStore(self.database)
        self.artefacts = ArtefactStore(settings.artefacts_dir)

    def prepare(self) -> None:
        """Makes folders and brings the schema to this version. Every process calls it at start."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self.artefacts.prepare()
        migrate(self.database, self._folder)

    def wake(self, audience: Audience) -> None:
        wake(self._wake_folder, audience)

    def wake_receiver(self, audience: Audience) -> WakeReceiver:
        return WakeReceiver(self._wake_folder, audience)

    def close(self) -> None:
        self.database.close()
