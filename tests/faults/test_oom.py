"""Memory that runs out at each stage on each rung: the next rung, and it is remembered."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

from support.fault_bench import FaultBench
from support.fault_checks import check_all_done

GPU = {
    "kind": "gpu",
    "name": "stub gfx1100",
    "total_bytes": 24 << 30,
    "threads": 1,
    "backend": "rocm",
    "capability": "gfx1100",
    "host_bytes": 64 << 30,
}
DENOISE = ["model_offload", "group_offload", "sequential_offload", "split_batch"]
DECODE = ["tiled", "small_tiles", "miopen_fast_find", "miopen_fewer_solvers", "cpu"]
MATRIX = [
    *product(["encode_prompt"], DENOISE[:1]),
    *product(["denoise"], DENOISE),
    *product(["stored", "decode", "encode"], DECODE),
]


def test_oom_at_each_stage_below_each_rung(
    bench: FaultBench, sizes: Callable[[int, int], int], figures: Callable[..., None]
) -> None:
    bench.start(device=GPU)
    repeats = sizes(1, 10)
    first, later = [], []
    both = list(product(MATRIX, ["oom", "oomdie"]))
    # The short form takes the two ways of running out in turns.
    cases = [case for place, case in enumerate(both) if sizes((place // 2 + place) % 2, 1)]
    for number, ((stage, rung), how) in enumerate(cases):
        # A size of its own is a key of its own.
        size = {"width": 64 + 64 * (number % 8), "height": 64 + 64 * (number // 8 % 8)}
        switch = f"!{how}@{stage}<{rung}"
        first.append(bench.ended(bench.submit(switch, **size)))
        started = bench.starts()
        more = [bench.ended(bench.submit(switch, **size)) for _ in range(repeats)]
        assert bench.starts() <= started + 1, f"{switch}: the rung was not remembered"
        later += more
    check_all_done(bench, [*first, *later])
    assert {job.attempt for job in later} == {1}
    check_no_step_repeated_after_latents(bench)
    figures(
        cases=len(first),
        pictures=f"{len(first) + len(later)}/{len(first) + len(later)}",
        remembered=f"{len(later)}/{len(later)}",
        most_attempts=max(job.attempt for job in first),
    )


def check_no_step_repeated_after_latents(bench: FaultBench) -> None:
    """A job whose memory ran out in decode denoised once."""
    in_decode = {line["job"] for line in bench.ledger("decoded")} - {
        line["job"]
        for line in [*bench.ledger("oom"), *bench.ledger("oomdie")]
        if line["stage"] in {"encode_prompt", "denoise"}
    }
    steps = [
        (line["job"], line["index"], line["step"])
        for line in bench.ledger("step")
        if line["job"] in in_decode
    ]
    assert len(steps) == len(set(steps))


def test_memory_that_no_rung_saves_is_a_failure_with_its_reason(bench: FaultBench) -> None:
    bench.start(device=GPU)
    job = bench.ended(bench.submit("!oom@denoise"))
    assert (job.state, job.failure_code) == ("failed", "gpu_oom")
    assert "HIP out of memory" in (job.failure_detail or "")
    climbed = [attempt.rungs for attempt in bench.store.attempts.of(job.id) if attempt.rungs]
    assert [rungs["denoise"] for rungs in climbed] == DENOISE


def test_a_failed_try_of_a_higher_rung_costs_no_picture(bench: FaultBench) -> None:
    """One job in 50 tries one rung up; where that still fails, the job takes the known rung."""
    bench.start(device=GPU)
    jobs = [bench.submit("!oom@decode<tiled") for _ in range(51)]
    for job in jobs:
        bench.ended(job, seconds=60)
    done = check_all_done(bench, jobs)
    assert sorted({job.attempt for job in done}) == [1, 2]
    assert sum(job.attempt == 2 for job in done) == 2  # the first of all, and the one that tried
