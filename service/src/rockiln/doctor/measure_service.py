"""What the service and its store say. The store is opened for reading alone."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import closing
from email.utils import parsedate_to_datetime
from typing import Any

from rockiln.cli.client import AddressError, Client, UnreachableError
from rockiln.domain.job import WAITING_STATES
from rockiln.settings import Settings
from rockiln.store.schema import IDENTITY_FILE

CALL_SECONDS = 5.0


def measure_service(settings: Settings, *, skip: bool) -> dict[str, Any]:
    """Whether it answers and is ready, and how far its clock is from ours."""
    facts: dict[str, Any] = {"service_fault": "", "not_ready": "", "clock_skew_seconds": None}
    if skip:
        return facts
    try:
        with Client(f"http://{settings.published_address}", timeout_seconds=CALL_SECONDS) as client:
            reply = client.call("GET", "/readyz")
    except (AddressError, UnreachableError) as error:
        facts["service_fault"] = str(error)
        return facts
    if not reply.ok:
        facts["not_ready"] = reply.told()
    told = {name.lower(): value for name, value in reply.headers.items()}.get("date")
    if told:
        facts["clock_skew_seconds"] = parsedate_to_datetime(told).timestamp() - time.time()
    return facts


def measure_store(settings: Settings) -> dict[str, Any]:
    """Integrity, workers, queue and faults; None for what a PostgreSQL store keeps elsewhere."""
    path = settings.store_dir / "rockiln.db"
    facts: dict[str, Any] = {
        "store": None,
        "store_path": str(path),
        "store_is_sqlite": settings.database_url is None and settings.database_url_file is None,
        "artefacts_fault": "",
        "workers": None,
        "waiting_jobs": None,
        "refusals": None,
        "last_fault": None,
        "fault_age_seconds": None,
    }
    if not facts["store_is_sqlite"]:
        return facts
    try:
        if not path.exists():
            return facts | {"store": "missing"}
        address = f"file:{path}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=CALL_SECONDS)) as connection:
            connection.row_factory = sqlite3.Row
            return facts | _read(connection, settings)
    except (PermissionError, sqlite3.OperationalError) as error:
        # Not allowed, locked, or of another version: not damaged.
        return facts | {"store": "unreadable", "store_path": f"{path}: {error}"}
    except sqlite3.DatabaseError as error:
        return facts | {"store": str(error)}


def _read(connection: sqlite3.Connection, settings: Settings) -> dict[str, Any]:
    now = time.time()
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    workers = [
        _worker(row, now, settings)
        for row in connection.execute("SELECT * FROM worker ORDER BY name")
    ]
    fault = connection.execute("SELECT * FROM attempt ORDER BY at DESC LIMIT 1").fetchone()
    return {
        "store": verdict,
        "workers": workers,
        "waiting_jobs": sum(
            count
            for state, count in connection.execute("SELECT state, count(*) FROM job GROUP BY state")
            if state in WAITING_STATES
        ),
        "refusals": _count(connection, "SELECT count(*) FROM refusal WHERE refused_until > ?", now),
        "last_fault": None if fault is None else f"{fault['code']}: {fault['detail']}",
        "fault_age_seconds": None if fault is None else now - fault["at"],
        "artefacts_fault": _artefacts(connection, settings),
    }


def _count(connection: sqlite3.Connection, query: str, *values: Any) -> int:
    return int(connection.execute(query, values).fetchone()[0])


def _worker(row: sqlite3.Row, now: float, settings: Settings) -> dict[str, Any]:
    device, health = (json.loads(row[name]) if row[name] else None for name in ("device", "health"))
    age = now - row["heartbeat_at"]
    return {
        "name": row["name"],
        "state": row["state"],
        "detail": row["detail"],
        "heartbeat_age_seconds": age,
        "working": row["state"] in {"ready", "busy"} and age <= settings.worker_stale_seconds,
        "on_gpu": None if device is None else device.get("kind") == "gpu",
        "health": health,
    }


def _artefacts(connection: sqlite3.Connection, settings: Settings) -> str:
    """Whether the folder of pictures is the one that this store is bound to."""
    row = connection.execute("SELECT value FROM fact WHERE name = 'identity'").fetchone()
    file = settings.artefacts_dir / IDENTITY_FILE
    if row is None or not os.access(file, os.R_OK):
        return ""
    found = file.read_text().strip()
    return "" if found == row["value"] else f"{settings.artefacts_dir} belongs to store {found}"
