"""One log line per answered request: what was called and how it ended, never what was said."""

from __future__ import annotations

import time

import structlog
from flask import Flask, Response, g, request

log = structlog.get_logger("rockiln.api")
# Asked every few seconds by machines.
_QUIET_ENDPOINTS = frozenset({"health.livez", "health.readyz"})


def init_request_log(app: Flask) -> None:
    """Installs the line. Called before all else that works on requests, so it counts all time."""

    @app.before_request
    def start_clock() -> None:
        g.started_monotonic = time.monotonic()

    @app.after_request
    def tell(response: Response) -> Response:
        write = log.debug if request.endpoint in _QUIET_ENDPOINTS else log.info
        rule = request.url_rule
        write(
            "request.answered",
            method=request.method,
            route=rule.rule if rule is not None else None,
            status=response.status_code,
            milliseconds=round((time.monotonic() - g.started_monotonic) * 1000, 1),
            job_id=g.get("job_id"),
            **({"client_left": True} if g.get("client_left") else {}),
        )
        return response
