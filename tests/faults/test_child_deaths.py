"""Engines die in every way and at any moment; accepted jobs end as pictures.

Sources: field reports of Radeon image servers ("malloc(): invalid size" after 20 of 20 steps, VAE
decode that never returns, "no suitable algorithm"), docs/faults.md.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

import psutil
import pytest
from faults.conftest import spread

from support.fault_bench import FaultBench
from support.fault_checks import (
    check_all_done,
    check_no_latents_left,
    check_no_step_repeated,
    check_no_torn_file,
    check_pictures,
    check_published_once,
)
from support.service import eventually

Sizes = Callable[[int, int], int]
Figures = Callable[..., None]


def test_sigkill_of_the_engine_at_random_moments(
    bench: FaultBench, sizes: Sizes, figures: Figures
) -> None:
    kills, chance = sizes(100, 1000), random.Random(5)  # noqa: S311 (a seed that repeats)
    bench.start()
    jobs = [bench.submit("!slow=4@denoise", num_images=2) for _ in range(kills // 2)]
    recovered: list[float] = []
    killed = 0
    while killed < kills:
        engine = eventually(bench.engine, "an engine lives")
        time.sleep(chance.uniform(0.0, 0.15))  # the moment is what is random here
        try:
            engine.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
        died = time.monotonic()
        killed += 1
        bench.next_engine(engine)
        recovered.append(time.monotonic() - died)
        jobs.append(bench.submit("!slow=4@denoise"))
    for job in jobs:
        bench.ended(job, seconds=120)
    done = check_all_done(bench, jobs)
    check_published_once(bench, done)
    files = check_no_torn_file(bench)
    check_no_latents_left(bench)
    figures(
        kills=killed,
        jobs=len(jobs),
        lost=0,
        published_twice=0,
        torn_files=0,
        files=files,
        most_attempts=max(job.attempt for job in done),
        **spread(recovered),
    )


def test_heap_corruption_at_exit_after_publishing(
    bench: FaultBench, sizes: Sizes, figures: Figures
) -> None:
    """The field's fault (a): all work done, then glibc aborts in an exit handler."""
    count = sizes(60, 500)
    bench.start()
    jobs = [bench.submit("!heap@exit") for _ in range(count)]
    for job in jobs:
        bench.ended(job, seconds=120)
    done = check_all_done(bench, jobs)
    assert {job.attempt for job in done} == {1}
    deaths = bench.log().count("code=exit_corruption")
    assert deaths >= count - 1, "every engine must really have died"
    figures(delivered=f"{len(done)}/{count}", deaths=deaths)


def test_abort_between_the_last_step_and_decode(
    bench: FaultBench, sizes: Sizes, figures: Figures
) -> None:
    count = sizes(50, 500)
    bench.start()
    jobs = [bench.submit("!abort@stored#1") for _ in range(count)]
    for job in jobs:
        bench.ended(job, seconds=120)
    done = check_all_done(bench, jobs)
    assert {job.attempt for job in done} == {2}
    check_no_step_repeated(bench)
    assert all(job.pictures[0].details["resumed"] for job in done)
    figures(delivered=f"{len(done)}/{count}", repeated_steps=0)


@pytest.mark.parametrize("how", ["segv", "abort", "heap", "exit=9", "kill", "gibberish", "half"])
@pytest.mark.parametrize("stage", ["encode_prompt", "denoise.2", "stored", "decode", "encode"])
def test_one_death_of_any_kind_at_any_stage_costs_one_attempt(
    shared_bench: FaultBench, how: str, stage: str
) -> None:
    job = shared_bench.ended(shared_bench.submit(f"!{how}@{stage}#1"))
    assert (job.state, job.attempt) == ("done", 2)
    check_pictures(shared_bench, job)


@pytest.fixture(scope="module")
def shared_bench(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """One supervisor for many small faults."""
    bench = FaultBench(tmp_path_factory.mktemp("shared"))
    bench.start()
    yield bench
    assert bench.stop() == [0]


def test_an_engine_sees_no_secret(bench: FaultBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "a token")
    address = f"sqlite:///{bench.folder}/data/store/rockiln.db"
    bench.start(database_url=address)
    seen = eventually(bench.engine, "an engine lives").environ()
    assert address in psutil.Process(bench.process.pid).environ().values()
    assert not {address, "a token"} & set(seen.values())
    assert seen["ROCKILN_DATA_DIR"]
    bench.ended(bench.submit())
