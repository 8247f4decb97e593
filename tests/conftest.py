"""Rules for every test here."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.postgres import PostgresServer


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models with one tiny one."""
    from support.tiny_sd1 import make_tiny_sd1  # noqa: PLC0415 (torch loads for seconds)

    folder = tmp_path_factory.mktemp("models")
    make_tiny_sd1(folder / "tiny")
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the whole run; ask it for a database of one's own."""
    from support.postgres import PostgresServer  # noqa: PLC0415 (only some tests have psycopg)

    server = PostgresServer()
    yield server
    server.close()


# Loading modules makes objects that stay: to look through them again and again took a third of it.
gc.disable()


def pytest_collection_finish() -> None:
    """What is there now stays; only what the tests make is looked through."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that processes side by side end together."""
    items.sort(key=lambda item: item.get_closest_marker("docker") is None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The lines of the fixture ``figures``, also from other processes."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    lines = [
        str(value)
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, value in report.user_properties
        if name == "figures"
    ]
    if lines:
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """What did not run has not passed: a skip fails, unless the test is marked ``gpu``."""
    report = yield
    if report.skipped and item.get_closest_marker("gpu") is None:  # type: ignore[attr-defined]
        report.outcome = "failed"  # type: ignore[attr-defined]
        report.longrepr = f"not run, so not passed: {report.longrepr}"  # type: ignore[attr-defined]
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """A module that skips itself fails likewise."""
    report = yield
    if report.skipped:  # type: ignore[attr-defined]
        report.outcome = "failed"  # type: ignore[attr-defined]
    return report
