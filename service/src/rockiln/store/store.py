"""One object that opens everything below the store."""

from __future__ import annotations

import os
from contextlib import suppress

from rockiln.settings import Settings
from rockiln.store.artefacts import ArtefactStore
from rockiln.store.database import Database
from rockiln.store.deletion import Deletion
from rockiln.store.events import AttemptStore, EventStore
from rockiln.store.experience import RefusalStore, RungStore
from rockiln.store.facts import FactStore
from rockiln.store.in_use import InUse
from rockiln.store.jobs import JobStore
from rockiln.store.keys import KeyStore
from rockiln.store.model_tasks import ModelTaskStore
from rockiln.store.records import Job
from rockiln.store.schema import (
    StoreRefusedError,
    bind_artefacts,
    check_integrity,
    migrate,
)
from rockiln.store.sessions import SessionStore
from rockiln.store.upkeep import Retention, Upkeep
from rockiln.store.wake import Audience, WakeReceiver, wake
from rockiln.store.workers import WorkerStore


class Store:
    """Everything that is kept of one site, and its wake-ups.

    While one is open the store is in use: it is not restored over.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.store_dir
        self._wake_folder = settings.store_dir / "wake"
        self._in_use = InUse(settings.store_dir)
        self.database = Database(
            settings.resolve_database_url(), answer_seconds=settings.database_answer_seconds
        )
        self.jobs = JobStore(self.database)
        self.workers = WorkerStore(self.database)
        self.events = EventStore(self.database)
        self.attempts = AttemptStore(self.database)
        self.rungs = RungStore(self.database)
        self.refusals = RefusalStore(self.database)
        self.facts = FactStore(self.database)
        self.keys = KeyStore(self.database)
        self.sessions = SessionStore(self.database)
        self.model_tasks = ModelTaskStore(self.database)
        self.artefacts = ArtefactStore(settings.artefacts_dir)
        self.deletion = Deletion(self.database, self.artefacts)
        self.upkeep = Upkeep(self.database, self.artefacts, self.deletion, Retention.of(settings))

    def prepare(self) -> None:
        """Makes folders and brings the schema to this version. Every process calls it at start.

        Raises:
            StoreRefusedError: the data folder cannot be written, the database is damaged, or the
                artefact folder is another store's.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._in_use.hold()
            self.artefacts.prepare()
        except OSError as error:
            raise StoreRefusedError(
                f"{error}; make {self._settings.data_dir} writable for uid {os.geteuid()}, or set "
                "ROCKILN_DATA_DIR"
            ) from error
        migrate(self.database, self._folder)
        check_integrity(self.database)
        bind_artefacts(self.database, self._folder, self._settings.artefacts_dir)

    def cancel(self, job_id: str) -> Job:
        """Cancels a job, and tells everybody concerned.

        Raises:
            UnknownJobError, JobNotCancellableError: as ``jobs.cancel`` says.
        """
        job = self.jobs.cancel(job_id)
        if job.ended:  # it waited, maybe with latents of an attempt that was given back
            with suppress(OSError):  # upkeep takes what stays
                self.artefacts.drop_latents(job_id)
        self._wake_all()
        return job

    def purge(self, job_id: str) -> None:
        """Deletes a job for good; a worker takes its files away within a minute."""
        self.deletion.mark(job_id)
        self._wake_all()

    def _wake_all(self) -> None:
        self.wake("worker")
        self.wake("api")

    def wake(self, audience: Audience) -> None:
        wake(self._wake_folder, audience)

    def wake_receiver(self, audience: Audience) -> WakeReceiver:
        return WakeReceiver(self._wake_folder, audience)

    def close(self) -> None:
        self.database.close()
        self._in_use.release()
