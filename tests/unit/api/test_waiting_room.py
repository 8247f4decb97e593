"""The thread that watches for all who wait."""

from __future__ import annotations

import socket
import threading

import pytest
from sqlalchemy.exc import OperationalError

from rockiln.api.waiting import WaitingRoom
from rockiln.store.records import Job
from support.front import Front
from support.service import eventually


def test_slots_are_taken_and_given_back(front: Front) -> None:
    room = WaitingRoom(front.store, slots=1)
    with room.slot() as first, room.slot() as second:
        assert (first, second) == (True, False)
    with room.slot() as again:
        assert again


def test_many_calls_on_one_job_are_all_let_go(front: Front) -> None:
    job_id = front.submit()
    room = front.services.waiting_room
    callers = [threading.Thread(target=room.wait, args=(job_id, 60)) for _ in range(8)]
    for caller in callers:
        caller.start()
    front.hand.finish(front.hand.lease())
    for caller in callers:
        caller.join(60)
        assert not caller.is_alive()


def test_a_job_that_ended_before_is_not_waited_for(front: Front) -> None:
    job_id = front.submit()
    front.hand.finish(front.hand.lease())
    awaited = front.services.waiting_room.wait(job_id, 60)
    assert awaited.job == front.store.jobs.get(job_id)


def test_a_job_that_was_deleted_is_not_handed_over(front: Front) -> None:
    job_id = front.submit()
    front.hand.finish(front.hand.lease())
    front.store.purge(job_id)
    assert front.services.waiting_room.wait(job_id, 60).job is None


def test_nobody_is_waked_by_another_job(front: Front) -> None:
    job_id, other = front.submit(), front.submit()
    front.hand.finish(front.hand.lease())
    assert front.store.jobs.get(job_id).ended
    front.services.waiting_room.wait(other, 0.6)
    assert not front.store.jobs.get(other).ended


def test_the_watch_goes_on_after_the_store_failed(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = front.submit()
    front.hand.finish(front.hand.lease())
    real, calls = front.store.jobs.ended_among, []

    def fail_once(job_ids: list[str]) -> dict[str, Job | None]:
        calls.append(job_ids)
        if len(calls) == 1:
            raise OperationalError("", None, Exception("disk"))
        return real(job_ids)

    monkeypatch.setattr(front.store.jobs, "ended_among", fail_once)
    front.services.waiting_room.wait(job_id, 60)
    assert len(calls) == 2


def test_a_closed_room_lets_everybody_go(front: Front) -> None:
    caller = threading.Thread(target=front.services.waiting_room.wait, args=(front.submit(), 60))
    caller.start()
    front.services.waiting_room.close()
    caller.join(60)
    assert not caller.is_alive()


def test_a_client_that_leaves_is_let_go_and_the_others_stay(front: Front) -> None:
    job_id = front.submit()
    room = front.services.waiting_room
    leaves, stays = socket.socketpair(), socket.socketpair()
    left: dict[str, bool] = {}
    callers = [
        threading.Thread(
            target=lambda n, s: left.update({n: room.wait(job_id, 60, s).client_left}), args=each
        )
        for each in (("leaves", leaves[0]), ("stays", stays[0]))
    ]
    for caller in callers:
        caller.start()
    stays[1].sendall(b"the next request")  # sent early, and no reason to stop waiting
    leaves[1].close()
    callers[0].join(60)
    assert left == {"leaves": True}
    front.hand.finish(front.hand.lease())
    callers[1].join(60)
    assert left == {"leaves": True, "stays": False}
    for each in (*leaves, *stays):
        each.close()


def test_a_hundred_who_leave_and_a_hundred_who_stay_are_not_confused(front: Front) -> None:
    """Descriptors are used again at once: nobody may be taken for one who left before."""
    job_id = front.submit()
    room = front.services.waiting_room
    answers: list[tuple[bool, bool]] = []

    def call(leaves: bool) -> None:
        server, client = socket.socketpair()
        with server, client:
            if leaves:
                client.close()
            answers.append((leaves, room.wait(job_id, 60, server).client_left))

    callers = [threading.Thread(target=call, args=(bool(n % 2),)) for n in range(200)]
    for caller in callers:
        caller.start()
    eventually(lambda: len(answers) == 100, "all who leave are let go")
    front.hand.finish(front.hand.lease())
    for caller in callers:
        caller.join(60)
    assert len(answers) == 200
    assert all(leaves == left for leaves, left in answers)
