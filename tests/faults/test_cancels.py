"""A cancel is honoured in every state, within a step + 1 s, and leaves no file behind."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from faults.conftest import spread

from rockiln.domain.errors import JobNotCancellableError
from rockiln.domain.job import WAITING_STATES
from rockiln.store.records import Job
from support.fault_bench import FaultBench
from support.fault_checks import check_no_latents_left, check_pictures
from support.service import eventually


def test_cancels_at_random_moments(
    bench: FaultBench, sizes: Callable[[int, int], int], figures: Callable[..., None]
) -> None:
    count, chance = sizes(60, 500), random.Random(17)  # noqa: S311 (a seed that repeats)
    bench.start()
    bench.ended(bench.submit())
    took, outcomes = [], {"cancelled": 0, "done": 0}
    for _ in range(count):
        job = bench.submit("!slow=10@denoise !slow=20@decode", num_inference_steps=6)
        time.sleep(chance.uniform(0.0, 0.12))  # the moment is what is random here
        begun = time.monotonic()
        with suppress(JobNotCancellableError):
            bench.store.cancel(job.id)
        ended = bench.ended(job)
        took.append(time.monotonic() - begun)
        outcomes[ended.state] += 1
        if ended.state == "done":
            check_pictures(bench, ended)
    assert outcomes["cancelled"] > count / 3
    # The bound is a step + 1 s; a short run shares its machine with other tests.
    assert max(took) < sizes(5, 1) + 0.06
    check_no_latents_left(bench)
    figures(cancels=count, **outcomes, **spread(took))


@pytest.mark.parametrize(
    "switch",
    ["!slow=2000@encode_prompt", "!slow=500@denoise", "!slow=2000@stored", "!slow=2000@decode"],
)
def test_a_cancel_in_each_stage(bench: FaultBench, switch: str) -> None:
    bench.start(cancel_grace_seconds=5)
    job = bench.submit(switch)
    eventually(lambda: bench.state(job) != "accepted", "the job runs")
    bench.store.cancel(job.id)
    ended = bench.ended(job)
    assert ended.state in {"cancelled", "done"}
    if ended.state == "done":  # it was past the last place where an engine listens
        assert "decode" in switch
    check_no_latents_left(bench)


def test_a_cancel_between_two_attempts_takes_the_latents_away(bench: FaultBench) -> None:
    """An engine that died as it took a job up left its folder, once the job was cancelled (CI)."""
    bench.start(restart_backoff_seconds=600, restart_backoff_max_seconds=600)
    job = bench.submit("!kill@stored")
    eventually(lambda: bench.store.jobs.get(job.id).attempt == 1 and waits(bench, job), "it waits")
    assert bench.store.artefacts.latents_jobs() == [job.id]
    assert bench.store.cancel(job.id).state == "cancelled"
    check_no_latents_left(bench)


def waits(bench: FaultBench, job: Job) -> bool:
    return bench.state(job) in WAITING_STATES
