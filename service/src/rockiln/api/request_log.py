"""One log line and one count per answered request: what was called and how it ended.

What was said is in neither.
"""

from __future__ import annotations

import time

import structlog
from flask import Flask, Response, g, request

from rockiln.telemetry.metrics import Metrics

log = structlog.get_logger("rockiln.api")
# Asked every few seconds by machines.
_QUIET_ENDPOINTS = frozenset({"health.livez", "health.readyz", "measurements.get_metrics"})


def init_request_log(app: Flask, metrics: Metrics) -> None:
    """Installs the line. Called before all else that works on requests, so it counts all time."""

    @app.before_request
    def start_clock() -> None:
        g.started_monotonic = time.monotonic()

    @app.after_request
    def tell(response: Response) -> Response:
        write = log.debug if request.endpoint in _QUIET_ENDPOINTS else log.info
        rule = request.url_rule
        route = rule.rule if rule is not None else None
        seconds = time.monotonic() - g.started_monotonic
        # A method that no route takes is the client's own word: no label.
        method = request.method if rule is not None else None
        metrics.call_answered(route, method, response.status_code, seconds)
        if g.get("client_left"):
            metrics.client_left()
        write(
            "request.answered",
            method=request.method,
            route=route,
            status=response.status_code,
            milliseconds=round(seconds * 1000, 1),
            job_id=g.get("job_id"),
            **({"client_left": True} if g.get("client_left") else {}),
        )
        return response
