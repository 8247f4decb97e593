"""How the worker's gate and the doctor decide whether catalogue, host and container agree."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from rockiln.doctor.alignment import Document, compare
from rockiln.doctor.environment_rules import lint_environment
from rockiln.doctor.inside import measure
from rockiln.settings import Settings


def measure_here(settings: Settings) -> dict[str, Any]:
    """What is inside this container, with the variables that its engine gets."""
    return measure(Path("/"), sys.path, {**os.environ, **settings.engine_environment})


def agreement(
    host: Document,
    settings: Settings,
    *,
    inside: Document | None,
    gpu: Document,
    image: Document | None = None,
) -> list[dict[str, str]] | None:
    """The layers, see ``alignment.compare``; None where the provisioning wrote no row.

    Args:
        host: ``host.json``.
        inside: of the running container; None: none answered.
        gpu: the host's facts.
        image: ``recorded`` and ``running`` digest, where that is asked.
    """
    row = host.get("row")
    if not row:
        return None
    measured = inside or {}
    return compare(
        host["release"],
        row,
        inside=inside,
        gpu=gpu,
        drivers=host.get("drivers"),
        image=image,
        settings={"backend": settings.backend, "compute_device": settings.compute_device},
        lint=lint_environment(
            measured.get("environment", {}),
            torch_version=(measured.get("torch") or {}).get("version", ""),
            gfx=next((each["gfx"] for each in gpu["gpus"] if each["uuid"] == gpu["chosen"]), ""),
            row=row,
        ),
    )
