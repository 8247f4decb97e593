"""``rockiln wait`` and ``rockiln health``: short questions, told in exit codes."""

# ruff: noqa: PLC0415 (imports wait until they are needed: probes must start fast)

from __future__ import annotations

import json
import sys
import time
from typing import Literal

from rockiln.cli.client import AddressError, Client, UnreachableError
from rockiln.cli.exit_codes import FAILED

_PAUSE_SECONDS = 0.5
_PROBE_SECONDS = 3.0


def run_wait(url: str, *, timeout_seconds: float, json_output: bool) -> int:
    """0 once the service is ready; 1 with the last reason when the time is over."""
    deadline_monotonic = time.monotonic() + timeout_seconds
    while True:
        reason = _not_ready(url)
        left_seconds = deadline_monotonic - time.monotonic()
        if json_output and (reason is None or left_seconds <= 0):
            print(json.dumps({"ready": reason is None, "reason": reason}))
        if reason is None:
            return 0
        if left_seconds <= 0:
            print(f"rockiln: not ready after {timeout_seconds:g} s: {reason}", file=sys.stderr)
            return FAILED
        time.sleep(min(_PAUSE_SECONDS, left_seconds))


def run_health(process: Literal["api", "worker"]) -> int:
    """0 if the process is well; 1 with the reason."""
    reason = _api_fault() if process == "api" else _worker_fault()
    if reason is None:
        return 0
    print(f"rockiln: {process}: {reason}", file=sys.stderr)
    return FAILED


def _not_ready(url: str) -> str | None:
    try:
        with Client(url, timeout_seconds=_PROBE_SECONDS) as client:
            reply = client.call("GET", "/readyz")
    except (AddressError, UnreachableError) as error:
        return str(error)
    return None if reply.ok else reply.told()


def _api_fault() -> str | None:
    from rockiln.cli.configuration import load_settings
    from rockiln.settings import split_address

    host, port = split_address(load_settings().api_bind)
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    shown = f"[{reached}]" if ":" in reached else reached
    try:
        with Client(f"http://{shown}:{port}", timeout_seconds=_PROBE_SECONDS) as client:
            reply = client.call("GET", "/livez", headers={"Host": "localhost"})
    except UnreachableError as error:
        return str(error)
    return None if reply.ok else reply.told()


def _worker_fault() -> str | None:
    from sqlalchemy.exc import DBAPIError

    from rockiln.api.readiness import worker_fault
    from rockiln.cli.configuration import load_settings
    from rockiln.store.database import Database
    from rockiln.store.workers import WorkerStore

    settings = load_settings()
    database = Database(settings.resolve_database_url())
    try:
        workers = {worker.name: worker for worker in WorkerStore(database).all()}
    except DBAPIError as error:
        return f"the store cannot be read: {error.orig}"
    finally:
        database.close()
    worker = workers.get(settings.worker_name)
    if worker is None:
        return f"{settings.worker_name} has not reported yet"
    return worker_fault(worker, now=time.time(), stale_after_seconds=settings.worker_stale_seconds)
