"""What workers say of themselves, for readiness and ``/system``."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from sqlalchemy import select

from rockiln.store.database import Database, retried_class
from rockiln.store.records import Worker, WorkerState
from rockiln.store.tables import WorkerRow

_BY_NAME = select(WorkerRow).order_by(WorkerRow.name)
_DEVICES = select(WorkerRow.device).order_by(WorkerRow.name)


@retried_class
class WorkerStore:
    """One row per worker, overwritten by each heartbeat."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def report(self, worker: Worker) -> None:
        """Writes the worker's row."""
        with self._database.write() as session:
            session.merge(WorkerRow(**asdict(worker)))

    def ask_for_proof(self, name: str) -> None:
        """A wedged worker is to try its device now, not when its pause is over."""
        with self._database.write() as session:
            row = session.get_one(WorkerRow, name)
            row.proof_asked_at = time.time()

    def take_proof_request(self, name: str) -> bool:
        """Whether that was asked since the last look."""
        with self._database.read() as session:
            row = session.get(WorkerRow, name)
            if row is None or row.proof_asked_at is None:
                return False
        with self._database.write() as session:
            session.get_one(WorkerRow, name).proof_asked_at = None
        return True

    def devices(self) -> list[dict[str, Any]]:
        """Of every worker that has said what its device is, by name."""
        with self._database.look() as connection:
            return [device for (device,) in connection.execute(_DEVICES) if device is not None]

    def all(self) -> list[Worker]:
        """Every worker that ever reported, by name."""
        with self._database.read() as session:
            return [
                Worker(
                    name=row.name,
                    state=WorkerState(row.state),
                    detail=row.detail,
                    device=row.device,
                    versions=row.versions,
                    heartbeat_at=row.heartbeat_at,
                    proof_at=row.proof_at,
                    health=row.health,
                )
                for row in session.scalars(_BY_NAME)
            ]
