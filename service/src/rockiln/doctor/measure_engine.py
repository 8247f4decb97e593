"""What the container engine says of the service's containers."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
from typing import Any

from rockiln.doctor import inside

PARTS = ("proxy", "api", "worker")
CALL_SECONDS = 20.0
WORKER_PYTHON = "/opt/venv/bin/python"


def measure_engine(host: dict[str, Any], prefix: str, *, skip: bool) -> dict[str, Any]:
    """``engine_version``, ``containers`` by name (None: not there) and ``recorded_images``."""
    images = host.get("images") or {}
    facts: dict[str, Any] = {
        "engine_version": None,
        "containers": {},
        "recorded_images": {
            f"{prefix}-{part}": image.get("digest") for part, image in images.items()
        },
    }
    if skip:
        return facts
    version = _docker("version", "--format", "{{.Server.Version}}")
    if version is None:
        return facts
    facts["engine_version"] = version.strip()
    for part in PARTS:
        facts["containers"][f"{prefix}-{part}"] = container(f"{prefix}-{part}")
    return facts


def container(name: str) -> dict[str, Any] | None:
    """``status``, ``health``, ``restarts`` and ``image``; None where there is none."""
    told = _docker("container", "inspect", name)
    if told is None:
        return None
    (found,) = json.loads(told)
    state = found["State"]
    return {
        "status": state["Status"],
        "health": (state.get("Health") or {}).get("Status"),
        "restarts": found.get("RestartCount", 0),
        "image": found["Image"],
    }


def measure_inside_container(name: str) -> dict[str, Any] | None:
    """Measured by the container's own interpreter with this version's text."""
    told = _docker(
        "exec", "--interactive", name, WORKER_PYTHON, "-", text=inspect.getsource(inside)
    )
    if told is None:
        return None
    found: dict[str, Any] = json.loads(told)
    return found


def _docker(*arguments: str, text: str | None = None) -> str | None:
    program = shutil.which("docker")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *arguments],
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            timeout=CALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    return done.stdout if done.returncode == 0 else None
