"""SIGKILL of the supervisor, of the api, of everything at once: no accepted job is lost."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

import httpx
import pytest
from faults.conftest import spread

from support.fault_bench import FAST, FaultBench
from support.fault_checks import (
    check_all_done,
    check_no_latents_left,
    check_no_torn_file,
    check_published_once,
)
from support.service import Service, eventually

Sizes = Callable[[int, int], int]
Figures = Callable[..., None]
BODY = {"prompt": "!slow=3@denoise", "model": "paper", "width": 64, "height": 64}


def test_sigkill_of_the_supervisor(bench: FaultBench, sizes: Sizes, figures: Figures) -> None:
    kills, chance = sizes(10, 300), random.Random(7)  # noqa: S311 (a seed that repeats)
    bench.start(lease_seconds=3600)
    jobs, recovered = [], []
    for _ in range(kills):
        jobs += [bench.submit("!slow=4@denoise") for _ in range(3)]
        bench.worker(lambda worker: worker.state in {"ready", "busy"})
        time.sleep(chance.uniform(0.0, 0.2))  # the moment is what is random here
        engine = bench.engine()
        bench.process.kill()
        bench.process.wait()
        died = time.time()
        if engine is not None:
            engine.wait(10)  # it goes with its supervisor
        bench.supervise()
        bench.proven_after(died)
        recovered.append(time.time() - died)
    for job in jobs:
        bench.ended(job, seconds=120)
    done = check_all_done(bench, jobs)
    check_published_once(bench, done)
    check_no_torn_file(bench)
    check_no_latents_left(bench)
    figures(kills=kills, jobs=len(jobs), lost=0, published_twice=0, **spread(recovered))


class Clients:
    """Submits without a pause, and remembers every job that was accepted."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._submit)
        self.accepted: list[str] = []
        self.unanswered = 0

    def __enter__(self) -> Clients:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _submit(self) -> None:
        headers = {"Prefer": "respond-async"}
        with httpx.Client(headers=headers, timeout=5) as client:
            while not self._stopping.wait(0.15):
                try:
                    answer = client.post(f"{self._url}/generate", json=BODY)
                except httpx.TransportError:
                    self.unanswered += 1
                    continue
                if answer.status_code == httpx.codes.ACCEPTED:
                    self.accepted.append(answer.json()["id"])


def check(bench: FaultBench, clients: Clients, recovered: list[float], figures: Figures) -> None:
    """Every job that was accepted is done, once, and whole."""
    jobs = [bench.store.jobs.get(job_id) for job_id in clients.accepted]
    assert jobs, "no job was accepted, so nothing was tried"
    for job in jobs:
        bench.ended(job, seconds=180)
    done = check_all_done(bench, jobs)
    check_published_once(bench, done)
    check_no_torn_file(bench)
    check_no_latents_left(bench)
    figures(kills=len(recovered), accepted=len(jobs), unanswered=clients.unanswered, lost=0,
            published_twice=0, **spread(recovered))  # fmt: skip


def test_sigkill_of_the_api(bench: FaultBench, sizes: Sizes, figures: Figures) -> None:
    """The workers of gunicorn and, every other time, its arbiter too; it is started again."""
    kills, chance = sizes(8, 300), random.Random(11)  # noqa: S311 (a seed that repeats)
    bench.start(queue_max_jobs=100_000)
    recovered = []
    with bench.api() as api, Clients(api.url) as clients:
        for kill in range(kills):
            time.sleep(chance.uniform(0.05, 0.5))  # the moment is what is random here
            api.kill(arbiter=kill % 2 == 1)
            died = time.monotonic()
            if kill % 2 == 1:
                api.start()
            eventually(api.is_alive, "the api answers", seconds=60)
            recovered.append(time.monotonic() - died)
    check(bench, clients, recovered, figures)


def test_sigkill_of_everything_at_once(
    bench: FaultBench, sizes: Sizes, figures: Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``rockiln serve`` with its api, its worker and its engine."""
    kills, chance = sizes(4, 300), random.Random(13)  # noqa: S311 (a seed that repeats)
    bench.prepare()
    monkeypatch.setenv("FAULTS_BENCH", str(bench.bench))
    settings = FAST | {"worker_python": bench.settings.worker_python, "queue_max_jobs": 100_000}
    service = Service(bench.settings.data_dir, bench.models_dir, default_model="paper", **settings)
    recovered = []
    with service, Clients(service.url) as clients:
        for _ in range(kills):
            time.sleep(chance.uniform(0.05, 1.0))  # the moment is what is random here
            service.kill_all()
            died = time.monotonic()
            service.start(wait=False)
            eventually(service.is_alive, "the api answers", seconds=60)
            recovered.append(time.monotonic() - died)
        clients.__exit__()
        check(bench, clients, recovered, figures)
