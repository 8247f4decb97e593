"""A cancel is honoured in every state, within a step + 1 s, and leaves no file behind."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from faults.conftest import spread

from rockiln.domain.errors import JobNotCancellableError
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
            bench.store.jobs.cancel(job.id)
        bench.store.wake("worker")
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
    bench.store.jobs.cancel(job.id)
    bench.store.wake("worker")
    ended = bench.ended(job)
    assert ended.state in {"cancelled", "done"}
    if ended.state == "done":  # it was past the last place where an engine listens
        assert "decode" in switch
    check_no_latents_left(bench)
