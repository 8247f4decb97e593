"""Benches of the fault suite, its short and long forms, and its figures.

``nox -s faults`` runs the short forms, ``nox -s faults -- --long`` (or ROCKILN_LONG=1) the long
ones. Each run prints one line of figures.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from support.fault_bench import FaultBench


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="the fault suite's long forms")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    limit = 3600 if _long(config) else 240
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(limit))


@pytest.fixture
def sizes(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """Chooses between the short form's number and the long form's."""

    def choose(short: int, long: int) -> int:
        return long if _long(request.config) else short

    return choose


@pytest.fixture
def figures(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Callable[..., None]:
    """Prints one line at the end of the run: the test's name and what it counted."""

    def note(**counted: object) -> None:
        words = " ".join(f"{name}={value}" for name, value in counted.items())
        line = f"{request.node.name}: {words}"
        record_property("figures", line)
        path = os.environ.get("ROCKILN_FIGURES")
        if path:
            with Path(path).open("a") as file:
                file.write(f"{line}\n")

    return note


@pytest.fixture
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[FaultBench]:
    """A bench whose supervisors have to leave in order."""
    bench = FaultBench(tmp_path)
    yield bench
    failed = request.session.testsfailed
    statuses = bench.stop()
    if failed:
        sys.stdout.write(bench.log()[-20_000:])
    assert set(statuses) <= {0}


def spread(seconds: Sequence[float]) -> dict[str, str]:
    """p50 and p99, in milliseconds."""
    if not seconds:
        return {"p50": "-", "p99": "-"}
    if len(seconds) == 1:
        return {"p50": f"{seconds[0] * 1000:.0f}ms", "p99": f"{seconds[0] * 1000:.0f}ms"}
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {"p50": f"{cuts[49] * 1000:.0f}ms", "p99": f"{cuts[98] * 1000:.0f}ms"}


def _long(config: pytest.Config) -> bool:
    return bool(config.getoption("--long")) or os.environ.get("ROCKILN_LONG") == "1"
