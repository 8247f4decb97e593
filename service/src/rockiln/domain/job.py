"""The life of a job: one table that the store enforces, the tests walk and the docs print."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class JobState(StrEnum):
    """States in order of progress, then the side exits."""

    ACCEPTED = "accepted"
    LEASED = "leased"
    DENOISING = "denoising"
    LATENTS_STORED = "latents_stored"
    DECODING = "decoding"
    ENCODED = "encoded"
    PUBLISHED = "published"
    DONE = "done"
    RETRY_WAIT = "retry_wait"
    FAILED = "failed"
    QUARANTINED = "quarantined"
    CANCELLED = "cancelled"


_S = JobState
_PROGRESS = (_S.LEASED, _S.DENOISING, _S.LATENTS_STORED, _S.DECODING, _S.ENCODED, _S.PUBLISHED)
_EXITS = {_S.RETRY_WAIT, _S.FAILED, _S.QUARANTINED, _S.CANCELLED}

FINAL_STATES = frozenset({_S.DONE, _S.FAILED, _S.QUARANTINED, _S.CANCELLED})
WAITING_STATES = frozenset({_S.ACCEPTED, _S.RETRY_WAIT})
RUNNING_STATES = frozenset(_PROGRESS)

# A job follows its least advanced picture, so a running job may move to any later running state:
# what one picture passes through unseen, another one holds the job back from. ACCEPTED from a
# running state is a lease given back by a drain.
TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    _S.ACCEPTED: frozenset({_S.LEASED, _S.CANCELLED, _S.FAILED}),
    _S.RETRY_WAIT: frozenset({_S.LEASED, _S.CANCELLED, _S.FAILED, _S.QUARANTINED}),
    **{
        state: frozenset({*_PROGRESS[place + 1 :], _S.DONE, _S.ACCEPTED, *_EXITS})
        for place, state in enumerate(_PROGRESS)
    },
    **{state: frozenset() for state in FINAL_STATES},
}

# Pictures: forward through the work, and back to the last durable point when an attempt dies.
PICTURE_TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    _S.ACCEPTED: frozenset({_S.DENOISING}),
    _S.DENOISING: frozenset({_S.LATENTS_STORED, _S.ACCEPTED}),
    _S.LATENTS_STORED: frozenset({_S.DECODING, _S.ACCEPTED}),
    _S.DECODING: frozenset({_S.ENCODED, _S.LATENTS_STORED}),
    _S.ENCODED: frozenset({_S.PUBLISHED, _S.LATENTS_STORED}),
    _S.PUBLISHED: frozenset(),
}

# Where a picture stands again after its attempt died.
DURABLE_POINT: dict[JobState, JobState] = {
    _S.ACCEPTED: _S.ACCEPTED,
    _S.DENOISING: _S.ACCEPTED,
    _S.LATENTS_STORED: _S.LATENTS_STORED,
    _S.DECODING: _S.LATENTS_STORED,
    _S.ENCODED: _S.LATENTS_STORED,
    _S.PUBLISHED: _S.PUBLISHED,
}


def least_advanced(pictures: Iterable[JobState]) -> JobState:
    """State of a running job: that of its least advanced picture.

    A picture that waits for its first step counts as LEASED, because its job is.
    """
    order = list(PICTURE_TRANSITIONS)
    state = min(pictures, key=order.index)
    return JobState.LEASED if state is JobState.ACCEPTED else state
