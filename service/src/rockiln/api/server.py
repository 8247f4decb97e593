"""The command that serves the api. Pure, so that it can be read and tested without serving."""

from __future__ import annotations

import sys

from rockiln.settings import Settings

# Above nginx's own idle time towards this server, so that nginx closes first.
KEEP_ALIVE_SECONDS = 75
# A waiting call leaves at once when the server stops; this is for answers being sent.
GRACEFUL_STOP_SECONDS = 20
# The event loop must turn, whatever the request threads do.
LOOP_STALL_SECONDS = 60


def gunicorn_command(settings: Settings) -> list[str]:
    """One process with threads: see docs/decisions/0001 for why not two pools."""
    return [
        sys.executable,
        "-m",
        "gunicorn",
        f"--bind={settings.api_bind}",
        "--worker-class=rockiln.api.gunicorn_worker.ProblemWorker",
        "--workers=1",
        f"--threads={settings.api_threads}",
        # Above the calls that the proxy lets through: a full house must not keep probes out.
        "--worker-connections=4096",
        f"--timeout={LOOP_STALL_SECONDS}",
        f"--graceful-timeout={GRACEFUL_STOP_SECONDS}",
        f"--keep-alive={KEEP_ALIVE_SECONDS}",
        "--no-control-socket",
        "--config=python:rockiln.api.gunicorn_hooks",
        "rockiln.api.app:create_served_app()",
    ]
