"""What is kept of an engine that died: one JSON file for whoever looks for the cause.

No prompt is in it. A hash tells whether two deaths had the same.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rockiln.domain.fault import Fault
from rockiln.store.artefacts import write_durably
from rockiln.worker.attempt import Attempt
from rockiln.worker.classify import Death

SCHEMA = 1
_KEPT_FILES = 200
_TEXTS = ("prompt", "negative_prompt")
# What faulthandler prints before the stacks (CPython Python/traceback.c, Modules/faulthandler.c).
_STACK_STARTS = ("Fatal Python error", "Thread 0x", "Current thread 0x")


def bundle(
    attempt: Attempt,
    fault: Fault,
    death: Death,
    *,
    kernel_log_unreadable: str,
) -> dict[str, Any]:
    """Everything that is known of one death, fit for JSON."""
    parameters = attempt.job.parameters.as_dict()
    texts = [str(parameters[name]) for name in _TEXTS if parameters.get(name)]
    output = [_without(texts, line) for line in death.output]
    request: dict[str, Any] = {k: v for k, v in parameters.items() if k not in _TEXTS}
    for name in _TEXTS:
        request[f"{name}_sha256"] = hashlib.sha256(str(parameters[name]).encode()).hexdigest()
    return {
        "schema": SCHEMA,
        "job_id": attempt.job.id,
        "attempt": attempt.lease.attempt,
        "worker": attempt.lease.owner,
        "at": time.time(),
        "request": request,
        "fault": {
            "code": fault.code,
            "stage": fault.stage,
            "detail": _without(texts, fault.detail),
        },
        "death": {
            "pid": death.pid,
            "how": death.how,
            "clock": death.expired,
            "killed_by_us_for": death.ours,
            "kills_for_memory": death.oom_kills,
        },
        "plan": attempt.choice.plan.as_dict(),
        "key": attempt.choice.key,
        "output": output,
        "stacks": _stacks(output),
        "kernel": list(death.kernel_lines),
        "kernel_log_unreadable": kernel_log_unreadable,
        "device": asdict(attempt.ready.device),
        "versions": attempt.ready.versions,
    }


def store_bundle(folder: Path, content: dict[str, Any]) -> str:
    """Writes the bundle; returns its file name. The oldest go when there are many."""
    name = f"{content['job_id']}-{content['attempt']}.json"
    write_durably(folder / name, json.dumps(content, indent=1, sort_keys=True).encode())
    files = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in files[:-_KEPT_FILES]:
        path.unlink(missing_ok=True)
    return name


def _stacks(output: list[str]) -> list[str]:
    """The dump of all threads, from its first line on; empty if none was printed."""
    starts = (place for place, line in enumerate(output) if line.startswith(_STACK_STARTS))
    return output[next(starts, len(output)) :]


def _without(texts: Iterable[str], line: str) -> str:
    for text in texts:
        line = line.replace(text, "[prompt]")
    return line
