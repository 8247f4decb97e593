"""``rockiln warmup``: one job of its own purpose per size, in a real store."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rockiln.cli.warmup import run_warmup
from rockiln.domain.fault import Fault, FaultCode
from rockiln.settings import Settings
from rockiln.store.records import WorkerState
from rockiln.store.store import Store
from support.hand_worker import HandWorker
from support.paper_model import write_paper_model


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    write_paper_model(tmp_path / "models" / "paper")
    settings = Settings(data_dir=tmp_path)
    store = Store(settings)
    store.prepare()
    store.close()
    return settings


@pytest.fixture
def worker(settings: Settings) -> Iterator[list[tuple[str, int, int]]]:
    """Ends each job as a supervisor does: done, but for sides of 512 px. What it saw is told."""
    seen: list[tuple[str, int, int]] = []
    stop, reported = threading.Event(), threading.Event()

    def work() -> None:
        store = Store(settings)
        HandWorker(store).report()
        reported.set()
        while not stop.wait(0.02):
            leased = store.jobs.lease_next(worker="w", seconds=30)
            if leased is None:
                continue
            lease, job = leased
            seen.append((job.purpose, job.parameters.width, job.parameters.height))
            if job.parameters.width == 512:
                fault = Fault(FaultCode.BROKEN_MODEL, "its weights are torn", "start")
                store.jobs.end_attempt(lease, fault, max_attempts=1)
            else:
                store.jobs.record_warmed_up(lease)
        store.close()

    thread = threading.Thread(target=work)
    thread.start()
    assert reported.wait(30)
    yield seen
    stop.set()
    thread.join()


def test_each_size_is_a_warm_up_job_of_its_own(
    settings: Settings, worker: list[tuple[str, int, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_warmup(settings, "paper", "64x64, 128x64", json_output=True) == 0
    assert worker == [("warm_up", 64, 64), ("warm_up", 128, 64)]
    said = json.loads(capsys.readouterr().out)
    assert [(size["size"], size["state"]) for size in said["sizes"]] == [
        ("64x64", "done"),
        ("128x64", "done"),
    ]


def test_a_size_that_fails_says_why(
    settings: Settings, worker: list[tuple[str, int, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_warmup(settings, "paper", "512x512,64x64", json_output=False) == 1
    assert len(worker) == 2
    assert "its weights are torn" in capsys.readouterr().err


def test_without_a_worker_nothing_is_queued_and_the_reason_is_told(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_warmup(settings, "paper", "64x64", json_output=True) == 1
    assert "no worker has reported yet" in capsys.readouterr().err
    store = Store(settings)
    HandWorker(store).report(WorkerState.WEDGED, detail="engine 7 does not die")
    assert run_warmup(settings, "paper", "64x64", json_output=True) == 1
    assert "engine 7 does not die" in capsys.readouterr().err
    assert store.jobs.queue().waiting == 0
    store.close()


def test_a_full_queue_is_told(
    settings: Settings, worker: list[tuple[str, int, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    full = settings.model_copy(update={"queue_max_jobs": 0})
    assert run_warmup(full, "paper", "64x64", json_output=True) == 1
    assert "0 jobs wait already" in capsys.readouterr().err
    assert worker == []


@pytest.mark.parametrize(
    ("model", "sizes", "words"),
    [
        ("absent", "64x64", "no model 'absent'"),
        ("paper", "64", "write WIDTHxHEIGHT"),
        ("paper", "64x64,", "write WIDTHxHEIGHT"),
        ("paper", "65x64", "width"),
        ("paper", "1024x64", "outside what model paper draws"),
    ],
)
def test_a_wrong_command_line_queues_nothing(
    settings: Settings, model: str, sizes: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_warmup(settings, model, sizes, json_output=False) == 2
    assert words in capsys.readouterr().err
    store = Store(settings)
    assert store.jobs.lease_next(worker="w", seconds=30) is None
    store.close()
