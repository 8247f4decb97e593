"""Jobs that kill every engine: few deaths, evidence, a refusal, and the others flow on."""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Callable

from rockiln.domain.fingerprint import fingerprint
from support.fault_bench import FaultBench
from support.fault_checks import check_all_done, check_no_torn_file

POISONS = ["!segv@denoise.2", "!abort@decode", "!heap@encode_prompt", "!exit=3@denoise"]


def test_poison_among_good_jobs(
    bench: FaultBench, sizes: Callable[[int, int], int], figures: Callable[..., None]
) -> None:
    good, poison = sizes(100, 1000), sizes(1, 10)
    chance = random.Random(3)  # noqa: S311 (a seed that repeats)
    prompts = ["a boat"] * good + [POISONS[n % len(POISONS)] for n in range(poison)]
    chance.shuffle(prompts)
    bench.start()
    first = bench.ended(bench.submit())
    jobs = {prompt: [] for prompt in {*prompts}}
    for number, prompt in enumerate(prompts):
        # Sizes of their own, so that a refusal of one poison is not one of the others.
        width = 64 + 8 * (number % 40)
        jobs[prompt].append(bench.submit(prompt, width=width if "!" in prompt else 64))
    for some in jobs.values():
        for job in some:
            bench.ended(job, seconds=300)
    done = check_all_done(bench, jobs.pop("a boat"))
    ended = [bench.store.jobs.get(job.id) for some in jobs.values() for job in some]
    assert {job.state for job in ended} == {"quarantined"}
    deaths = bench.starts() - 1
    assert deaths <= 3 * poison
    for job in ended:
        last = bench.store.attempts.of(job.id)[-1]
        evidence = json.loads((bench.store.artefacts.evidence_dir / last.evidence).read_text())
        assert evidence["fault"]["code"] == job.failure_code
        assert bench.store.refusals.active(fingerprint(job.parameters), 0.0) is not None
    check_no_torn_file(bench)
    spans = [job.ended_at - job.started_at for job in done if job.ended_at and job.started_at]
    figures(
        done=len(done),
        quarantined=len(ended),
        deaths=deaths,
        good_p95=f"{statistics.quantiles(spans, n=20)[-1] * 1000:.0f}ms",
        good_alone=f"{(first.ended_at or 0) - (first.started_at or 0):.3f}s",
    )
