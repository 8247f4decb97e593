"""What workers say of themselves, for readiness and ``/system``."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import select

from rockiln.store.database import Database, retried_class
from rockiln.store.records import Worker, WorkerState
from rockiln.store.tables import WorkerRow


@retried_class
class WorkerStore:
    """One row per worker, overwritten by each heartbeat."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def report(self, worker: Worker) -> None:
        """Writes the worker's row."""
        with self._database.write() as session:
            session.merge(WorkerRow(**asdict(worker)))

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
                for row in session.scalars(select(WorkerRow).order_by(WorkerRow.name))
            ]
