"""Rules for every test here."""

from __future__ import annotations

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
