"""Waiting jobs that are moved: within their owner's, and nobody else's turn changes."""

from __future__ import annotations

import threading

import pytest

from rockiln.domain.errors import JobNotWaitingError, UnknownJobError
from rockiln.domain.fault import Fault, FaultCode
from rockiln.store.jobs import JobStore
from rockiln.store.records import Move
from rockiln.store.store import Store
from support.parameters import parameters
from support.store_life import LIMITS
from unit.store.conftest import Clock


def send(jobs: JobStore, names: str, owner: str = "") -> dict[str, str]:
    """A job for each letter; ids by letter."""
    return {
        name: jobs.submit(parameters(prompt=name), limits=LIMITS, owner=owner).id for name in names
    }


def line(jobs: JobStore, owner: str | None = None) -> str:
    return "".join(job.parameters.prompt for job in jobs.waiting(limit=99, owner=owner))


@pytest.mark.parametrize(
    ("name", "to", "expected"),
    [
        ("c", "first", "cabd"), ("a", "first", "abcd"), ("c", "up", "acbd"), ("a", "up", "abcd"),
        ("b", "down", "acbd"), ("d", "down", "abcd"),
    ],
)  # fmt: skip
def test_a_job_is_moved_and_leased_at_its_new_place(
    jobs: JobStore, name: str, to: Move, expected: str
) -> None:
    ids = send(jobs, "abcd")
    assert jobs.move(ids[name], to).id == ids[name]
    assert line(jobs) == expected
    for position, each in enumerate(expected, 1):
        place = jobs.place(ids[each])
        assert place is not None
        assert place.position == position
    leased = [jobs.lease_next(worker="w", seconds=60) for _ in expected]
    assert "".join(each[1].parameters.prompt for each in leased if each) == expected


def test_owners_keep_their_turns(jobs: JobStore, clock: Clock) -> None:
    own = send(jobs, "ab", "one") | send(jobs, "x", "two") | send(jobs, "c", "one")
    other = send(jobs, "y", "two")
    jobs.move(own["c"], "first")
    jobs.move(other["y"], "up")
    assert line(jobs) == "caybx"
    assert (line(jobs, "one"), line(jobs, "two")) == ("cab", "yx")
    order = ""
    for _ in "caybx":
        clock.now += 1
        leased = jobs.lease_next(worker="w", seconds=60)
        assert leased is not None
        order += leased[1].parameters.prompt
        jobs.record_cancelled(leased[0])
    assert order == "cyaxb"  # one of each, as without moves


def test_what_comes_later_waits_behind_what_was_moved(jobs: JobStore) -> None:
    ids = send(jobs, "abc")
    jobs.move(ids["a"], "down")
    ids |= send(jobs, "d")
    jobs.move(ids["d"], "up")
    assert line(jobs) == "badc"


def test_a_retry_keeps_its_turn(jobs: JobStore, clock: Clock) -> None:
    ids = send(jobs, "abc")
    jobs.move(ids["c"], "first")
    leased = jobs.lease_next(worker="w", seconds=60)
    assert leased is not None
    jobs.move(ids["b"], "first")
    jobs.end_attempt(leased[0], Fault(FaultCode.ENGINE_DIED, "gone"), max_attempts=3)
    clock.now += 60
    assert line(jobs) == "cba"


def test_only_a_job_that_waits_is_moved(jobs: JobStore) -> None:
    ids = send(jobs, "ab")
    assert jobs.lease_next(worker="w", seconds=60) is not None
    jobs.cancel(ids["b"])
    for name in "ab":
        with pytest.raises(JobNotWaitingError):
            jobs.move(ids[name], "first")
    with pytest.raises(UnknownJobError):
        jobs.move("0" * 32, "up")


def test_moves_at_once_lose_no_job(store: Store) -> None:
    ids = list(send(store.jobs, "abcdefgh").values())
    failed: list[BaseException] = []

    moves: tuple[Move, ...] = ("first", "down", "up")

    def move(job_id: str) -> None:
        try:
            for to in moves:
                store.jobs.move(job_id, to)
        except BaseException as error:  # noqa: BLE001 (told below)
            failed.append(error)

    threads = [threading.Thread(target=move, args=(job_id,)) for job_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert sorted(line(store.jobs)) == list("abcdefgh")
    places = [store.jobs.place(job_id) for job_id in ids]
    assert sorted(place.position for place in places if place) == list(range(1, 9))
