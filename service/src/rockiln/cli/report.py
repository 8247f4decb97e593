"""``rockiln report``: how this host stands, for whoever helps. Works while the service is down."""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from sqlalchemy.exc import DBAPIError

from rockiln import __version__
from rockiln.api.views.system import system_document
from rockiln.cli.calls import Document, plain
from rockiln.cli.doctor import settings_or_fault
from rockiln.cli.exit_codes import FAILED
from rockiln.doctor.alignment import table
from rockiln.doctor.diagnosis import diagnose
from rockiln.doctor.measure import measure
from rockiln.doctor.report import document, show
from rockiln.domain.errors import UnknownJobError
from rockiln.settings import Settings
from rockiln.store.store import Store

SCHEMA = 1
_TEXTS = ("prompt", "negative_prompt")
_FAULTS_SHOWN = 5


def run_report(*, output: Path | None, prompts: bool, prefix: str, json_output: bool) -> int:
    """Prints the report, or writes it to a file; returns the exit code."""
    settings, fault = settings_or_fault()
    facts = measure(settings, settings_fault=fault, prefix=prefix)
    findings = diagnose(facts)
    report = {
        "schema": SCHEMA,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "rockiln": __version__,
        "doctor": document(facts, findings),
        **_of_store(settings, str(facts["store"]), prompts=prompts),
    }
    if output is not None:
        try:
            output.write_text(json.dumps(report, indent=2, default=str) + "\n")
        except OSError as error:
            print(f"rockiln: {output} cannot be written: {error.strerror}", file=sys.stderr)
            return FAILED
        print(json.dumps({"file": str(output)}) if json_output else output)
    elif json_output:
        print(json.dumps(report, indent=2, default=str))
    else:
        _print(report)
        show(facts, findings, Console(highlight=False))
    return 0


def _of_store(settings: Settings, state: str, *, prompts: bool) -> Document:
    """``system`` as ``GET /system`` answers it, and the jobs of its faults; or why not."""
    if state not in {"ok", "None"}:  # None: on PostgreSQL, which the doctor does not open
        return {"system": None, "system_fault": f"the store is {state}", "jobs": {}}
    try:
        with closing(Store(settings)) as store:
            system = system_document(store, settings, now=time.time()).model_dump(mode="json")
            ids = dict.fromkeys(fault["job_id"] for fault in system["faults"])
            jobs = {job_id: _parameters(store, job_id, prompts=prompts) for job_id in ids}
    except (DBAPIError, OSError) as error:
        told = error.orig if isinstance(error, DBAPIError) else error
        return {"system": None, "system_fault": f"the store: {told}", "jobs": {}}
    return {"system": system, "system_fault": "", "jobs": jobs}


def _parameters(store: Store, job_id: str, *, prompts: bool) -> Document | None:
    """What a job was asked for; None once it was deleted."""
    try:
        parameters = asdict(store.jobs.get(job_id).parameters)
    except UnknownJobError:
        return None
    return {name: value for name, value in parameters.items() if prompts or name not in _TEXTS}


def _print(report: Document) -> None:
    """The part that the doctor does not print itself."""
    system: dict[str, Any] | None = report["system"]
    print(f"rockiln {report['rockiln']}, report of {report['made_at']}")
    if report["doctor"]["facts"]["alignment"]:
        print("\nAlignment")
        for line in table(report["doctor"]["facts"]["alignment"]):
            print(f"  {line}")
    if system is None:
        print(f"\nNothing is known of workers and faults: {report['system_fault']}")
    else:
        print("\nWorkers" if system["workers"] else "\nNo worker has reported.")
        for worker in system["workers"]:
            versions = ", ".join(f"{n} {v}" for n, v in (worker["versions"] or {}).items())
            device = (worker["device"] or {}).get("name", "no device")
            print(f"  {worker['name']}: {worker['fault'] or worker['state']}; {device}; {versions}")
        print("\nLast faults" if system["faults"] else "\nNo attempt has failed lately.")
        for fault in system["faults"][:_FAULTS_SHOWN]:
            print(f"  {fault['ended_at'][:19]}Z {fault['reason']}: {plain(fault['detail'])}")
            asked = report["jobs"][fault["job_id"]] or {}
            said = ", ".join(f"{n} {v}" for n, v in asked.items() if v not in (None, [], ()))
            print(f"    job {fault['job_id']}: {plain(said)}")
            print(f"    next: {fault['next_step']}")
    print("\nFindings of rockiln doctor")
