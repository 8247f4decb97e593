"""Jobs are found by the words of their request, on either database."""

from __future__ import annotations

import pytest

from rockiln.store.jobs import JobStore
from rockiln.store.records import QueueLimits
from support.parameters import parameters


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("", [2, 1, 0]),
        ("BOAT", [1, 0]),
        ("boat lake", [0]),
        ("schöner", [1]),
        ("100%", [2]),
        ("%", [2]),
        ("seed:7", [0]),
        ("seed:7 steps:9", []),
        ("steps:9", [1]),
        ("guidance:4 seed:8", [1]),
        ("128x64", [2]),
        ("nothing:here", []),
        ("x", []),
        ("'; DROP TABLE job; --", []),
    ],
)
def test_every_word_must_be_in_the_request(jobs: JobStore, words: str, found: list[int]) -> None:
    asked = [
        parameters(prompt="a red boat on a lake", seed=7, guidance_scale=3.5),
        parameters(prompt="ein schöner Boat", seed=8, num_inference_steps=9, guidance_scale=4.0),
        parameters(prompt="100% wool", seed=9, width=128, height=64, guidance_scale=3.5),
    ]
    limits = QueueLimits(max_jobs=10)
    ids = [jobs.submit(each, limits=limits).id for each in asked]
    assert [job.id for job in jobs.page(limit=10, search=words)] == [ids[at] for at in found]
