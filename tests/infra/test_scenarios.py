"""Molecule's scenarios: fresh hosts in containers, and hosts that must be refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOG_TAIL_LINES = 60
# A play keeps one core busy, so the rows run side by side, each in its order. The first row shares
# a host (molecule/README.md); it has made the images when the second row's last one needs them.
ROWS = (
    ("upgrade", "rollback", "misaligned", "monitored", "interrupted"),
    ("refused", "rocm_host", "shadowed", "default"),
)


@dataclass
class Run:
    code: int
    seconds: float
    tail: str


@dataclass
class Scenarios:
    """Runs of Molecule under way; each answer is one scenario's."""

    logs: Path
    runs: dict[str, Future[Run]] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    stopped: bool = False

    def play(self, row: list[str]) -> None:
        for scenario in row:
            future = self.runs[scenario]
            if self.stopped:
                future.cancel()
                continue
            try:
                future.set_result(self.run(scenario))
            except Exception as error:  # noqa: BLE001 (the test that waits for it raises it)
                future.set_exception(error)

    def run(self, scenario: str) -> Run:
        started, log = time.monotonic(), self.logs / f"{scenario}.log"
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "molecule", "test", "--scenario-name", scenario],
                cwd=ROOT,
                env={**os.environ, "PATH": path, "NO_COLOR": "1"},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self.processes.append(process)
            code = process.wait()
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return Run(code, time.monotonic() - started, "\n".join(tail))

    def stop(self) -> None:
        """End what still runs, its plays too."""
        self.stopped = True
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)


@pytest.fixture(scope="module")
def scenarios(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scenarios]:
    """The chosen scenarios, started."""
    chosen = {
        item.callspec.params["scenario"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and "scenarios" in item.fixturenames
    }
    started = Scenarios(tmp_path_factory.mktemp("molecule"))
    rows = [[scenario for scenario in row if scenario in chosen] for row in ROWS]
    started.runs = {scenario: Future() for row in rows for scenario in row}
    with ThreadPoolExecutor(len(ROWS)) as pool:
        for row in rows:
            pool.submit(started.play, row)
        yield started
        started.stop()


@pytest.mark.docker
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("scenario", [scenario for row in ROWS for scenario in row])
def test_scenario_passes(
    scenario: str, scenarios: Scenarios, record_property: Callable[[str, object], None]
) -> None:
    run = scenarios.runs[scenario].result()
    record_property("seconds", run.seconds)
    assert run.code == 0, run.tail
