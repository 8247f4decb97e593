"""``rockiln`` commands, as a person runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.front import ServedFront

Finished = subprocess.CompletedProcess[str]


def rockiln(
    front: ServedFront, *arguments: str, cwd: Path | None = None, **variables: str
) -> Finished:
    """Runs a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "rockiln", *arguments],
        env={**front.environment(), **variables},
        cwd=cwd,
        check=False,
        capture_output=True,
        text=True,
        timeout=90,
    )
