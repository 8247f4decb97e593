"""Numbers for Prometheus. Every label takes its values from a closed set, so series are bounded.

What lives in the store is read when it is asked for (``telemetry.store_metrics``); counted here is
only what nobody else remembers: the calls this process answered.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from rockiln import __version__

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
# Sums over everything this module and store_metrics can ever show; a test counts it.
SERIES_MAX = 2000
# From a probe to a call that waited its whole time.
_CALL_SECONDS = (0.005, 0.025, 0.05, 0.1, 0.5, 1, 5, 30, 120)
_NO_ROUTE = "none"
# The time each series was born: a third more series that nothing reads.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """One registry per process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._calls = Counter(
            "rockiln_http_requests",
            "Calls answered, by route, method and status.",
            ("route", "method", "status"),
            registry=self._registry,
        )
        self._call_seconds = Histogram(
            "rockiln_http_request_seconds",
            "Time from the first header to the answer, waiting for pictures included.",
            ("route",),
            buckets=_CALL_SECONDS,
            registry=self._registry,
        )
        self._clients_left = Counter(
            "rockiln_http_clients_left",
            "Clients that disconnected while their call waited for a picture.",
            registry=self._registry,
        )
        build = Gauge(
            "rockiln_build_info", "1, with the version.", ("version",), registry=self._registry
        )
        build.labels(__version__).set(1)

    def add(self, collector: Collector) -> None:
        """Shows what ``collector`` reads, too."""
        self._registry.register(collector)

    def call_answered(
        self, route: str | None, method: str | None, status: int, seconds: float
    ) -> None:
        """Counts one call.

        Args:
            route: the pattern, never the address; None where no route was found.
            method: one that the route takes, or None.
        """
        route = route or _NO_ROUTE
        self._calls.labels(route, method or "other", str(status)).inc()
        self._call_seconds.labels(route).observe(seconds)

    def client_left(self) -> None:
        self._clients_left.inc()

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)
