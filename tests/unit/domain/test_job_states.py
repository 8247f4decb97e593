"""The life of a job, as a table."""

from __future__ import annotations

import itertools

from rockiln.domain.job import (
    DURABLE_POINT,
    FINAL_STATES,
    PICTURE_TRANSITIONS,
    RUNNING_STATES,
    TRANSITIONS,
    WAITING_STATES,
    JobState,
    least_advanced,
)


def test_every_state_is_waiting_running_or_final_and_has_a_row() -> None:
    groups = [WAITING_STATES, RUNNING_STATES, FINAL_STATES]
    assert set().union(*groups) == set(JobState) == set(TRANSITIONS)
    assert not any(a & b for a, b in itertools.combinations(groups, 2))


def test_every_job_can_reach_an_end_and_nothing_leaves_one() -> None:
    for state in JobState:
        reached = {state}
        while more := set().union(*(TRANSITIONS[s] for s in reached)) - reached:
            reached |= more
        assert reached & FINAL_STATES
        assert (state in FINAL_STATES) == (not TRANSITIONS[state])


def test_a_running_job_never_goes_back_within_an_attempt() -> None:
    order = list(JobState)
    for state in RUNNING_STATES:
        within = TRANSITIONS[state] & RUNNING_STATES
        assert all(order.index(later) > order.index(state) for later in within)


def test_a_dead_attempt_puts_a_picture_where_work_is_durable() -> None:
    for state, point in DURABLE_POINT.items():
        assert point in {JobState.ACCEPTED, JobState.LATENTS_STORED, JobState.PUBLISHED}
        assert point is state or point in PICTURE_TRANSITIONS[state]
    # What the project exists for: latents on disk are never denoised again.
    after_denoising = (JobState.LATENTS_STORED, JobState.DECODING, JobState.ENCODED)
    assert {DURABLE_POINT[s] for s in after_denoising} == {JobState.LATENTS_STORED}


def test_a_job_is_where_its_least_advanced_picture_is() -> None:
    s = JobState
    assert least_advanced([s.PUBLISHED, s.DENOISING]) is s.DENOISING
    assert least_advanced([s.PUBLISHED, s.ACCEPTED]) is s.LEASED
    assert least_advanced([s.PUBLISHED, s.PUBLISHED]) is s.PUBLISHED
