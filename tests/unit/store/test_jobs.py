"""Jobs in the store: accepted once, worked on by one attempt, published once."""

from __future__ import annotations

import pytest

from rockiln.domain.errors import (
    IdempotencyConflictError,
    IllegalTransitionError,
    JobNotCancellableError,
    LeaseLostError,
    QueueFullError,
    UnknownJobError,
)
from rockiln.domain.fault import Fault, FaultCode
from rockiln.domain.job import JobState
from rockiln.store.jobs import JobStore
from rockiln.store.records import Job, Lease, Picture, QueueLimits
from rockiln.store.store import Store
from support.parameters import parameters
from unit.store.conftest import Clock

DIED = Fault(FaultCode.ENGINE_DIED, "signal SIGKILL")
A_PICTURE = Picture(
    index=0,
    state=JobState.PUBLISHED,
    step=4,
    latents=None,
    digest="ab" * 32,
    size_bytes=1234,
    details={"seed": 7},
    warnings=("the prompt was cut",),
    seconds={"denoise": 1.0},
)


def submit(jobs: JobStore, num_images: int = 1) -> Job:
    return jobs.submit(parameters(num_images=num_images), limits=QueueLimits(max_jobs=10))


def lease(jobs: JobStore, worker: str = "cpu0") -> Lease:
    leased = jobs.lease_next(worker=worker, seconds=15)
    assert leased is not None
    return leased[0]


def make_picture(jobs: JobStore, lease: Lease, index: int = 0) -> Job:
    jobs.record_step(lease, index, 1)
    jobs.record_latents(lease, index, f"{lease.job_id}/{index}.safetensors")
    jobs.record_decode_started(lease, index)
    return jobs.publish(lease, index, A_PICTURE)


def test_a_job_passes_every_state_in_order(jobs: JobStore) -> None:
    job = submit(jobs)
    seen = [job.state]
    held = lease(jobs)
    seen.append(jobs.get(job.id).state)
    jobs.record_step(held, 0, 1)
    seen.append(jobs.get(job.id).state)
    jobs.record_latents(held, 0, "x/0.safetensors")
    seen.append(jobs.get(job.id).state)
    jobs.record_decode_started(held, 0)
    seen.append(jobs.get(job.id).state)
    done = jobs.publish(held, 0, A_PICTURE)
    seen.append(done.state)
    assert seen == ["accepted", "leased", "denoising", "latents_stored", "decoding", "done"]
    assert done.pictures[0].digest == A_PICTURE.digest
    assert done.pictures[0].warnings == A_PICTURE.warnings


def test_the_last_pictures_tell_what_they_took(jobs: JobStore, clock: Clock) -> None:
    submit(jobs)
    warm_up = jobs.submit(parameters(), limits=QueueLimits(max_jobs=10), purpose="warm_up")
    held = lease(jobs)
    clock.now += 3
    make_picture(jobs, held)
    jobs.record_warmed_up(lease(jobs))
    assert jobs.get(warm_up.id).ended
    submit(jobs)
    lease(jobs)
    assert jobs.durations(10) == [(parameters(), 3.0)]
    assert jobs.durations(0) == []


def test_oldest_first_and_each_job_to_one_worker(jobs: JobStore) -> None:
    first, second = submit(jobs), submit(jobs)
    assert lease(jobs, "a").job_id == first.id
    assert lease(jobs, "b").job_id == second.id
    assert jobs.lease_next(worker="a", seconds=15) is None


def test_last_picture_and_done_are_one(jobs: JobStore) -> None:
    submit(jobs, num_images=2)
    held = lease(jobs)
    assert make_picture(jobs, held, 0).state == "leased"  # picture 1 has not begun
    assert make_picture(jobs, held, 1).state == "done"


def test_a_retry_begins_at_the_latents(jobs: JobStore, clock: Clock) -> None:
    job = submit(jobs, num_images=2)
    held = lease(jobs)
    jobs.record_latents(held, 0, "x/0.safetensors")
    jobs.record_decode_started(held, 0)
    jobs.record_step(held, 1, 3)
    waiting = jobs.end_attempt(held, DIED, max_attempts=3)
    assert waiting.state == "retry_wait"
    assert [picture.state for picture in waiting.pictures] == ["latents_stored", "accepted"]
    assert jobs.lease_next(worker="cpu0", seconds=15) is None  # not before the pause is over
    clock.now += 60
    again = lease(jobs)
    assert again.attempt == 2
    jobs.record_decode_started(again, 0)
    jobs.publish(again, 0, A_PICTURE)
    assert make_picture(jobs, again, 1).state == "done"
    assert jobs.get(job.id).failure_code is None


def test_a_lost_lease_can_write_nothing(jobs: JobStore, clock: Clock) -> None:
    submit(jobs)
    zombie = lease(jobs)
    clock.now += 16
    assert [job.state for job in jobs.end_stale_attempts(DIED, max_attempts=3)] == ["retry_wait"]
    clock.now += 60
    owner = lease(jobs, "b")
    for write in (
        lambda: jobs.record_step(zombie, 0, 1),
        lambda: jobs.record_latents(zombie, 0, "x"),
        lambda: jobs.publish(zombie, 0, A_PICTURE),
        lambda: jobs.renew(zombie, seconds=15),
        lambda: jobs.end_attempt(zombie, DIED, max_attempts=3),
        lambda: jobs.give_back(zombie),
    ):
        with pytest.raises(LeaseLostError):
            write()
    assert make_picture(jobs, owner).state == "done"
    with pytest.raises(LeaseLostError):  # nothing is published twice
        jobs.publish(owner, 0, A_PICTURE)


def test_a_renewed_lease_does_not_run_out(jobs: JobStore, clock: Clock) -> None:
    submit(jobs)
    held = lease(jobs)
    for _ in range(5):
        clock.now += 10
        jobs.renew(held, seconds=15)
        assert jobs.end_stale_attempts(DIED, max_attempts=3) == []


def test_attempts_of_a_dead_worker_end_at_once(jobs: JobStore) -> None:
    submit(jobs)
    lease(jobs, "cpu0")
    assert jobs.end_stale_attempts(DIED, max_attempts=3, worker="cpu1") == []
    (ended,) = jobs.end_stale_attempts(DIED, max_attempts=3, worker="cpu0")
    assert ended.state == "retry_wait"


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        (DIED, "quarantined"),
        (Fault(FaultCode.ENGINE_ERROR, "no"), "failed"),
    ],
)
def test_attempts_are_counted(jobs: JobStore, clock: Clock, fault: Fault, state: str) -> None:
    submit(jobs)
    for _ in range(2):
        assert jobs.end_attempt(lease(jobs), fault, max_attempts=3).state == "retry_wait"
        clock.now += 60
    ended = jobs.end_attempt(lease(jobs), fault, max_attempts=3)
    assert (ended.state, ended.failure_code, ended.attempt) == (state, fault.code, 3)


def test_what_would_fail_again_is_not_tried_again(jobs: JobStore) -> None:
    submit(jobs)
    fault = Fault(FaultCode.REQUEST_BUG, "no such scheduler")
    assert jobs.end_attempt(lease(jobs), fault, max_attempts=3).state == "failed"


def test_a_lease_given_back_does_not_count(jobs: JobStore) -> None:
    submit(jobs)
    held = lease(jobs)
    jobs.record_latents(held, 0, "x/0.safetensors")
    jobs.give_back(held)
    assert lease(jobs).attempt == 1


def test_cancel_of_a_waiting_and_of_a_running_job(jobs: JobStore) -> None:
    waiting = submit(jobs)
    assert jobs.cancel(waiting.id).state == "cancelled"
    running = submit(jobs)
    held = lease(jobs)
    assert jobs.cancel(running.id).state == "leased"
    assert jobs.renew(held, seconds=15) is True
    jobs.record_cancelled(held)
    assert jobs.cancel(running.id).state == "cancelled"  # asking twice is no error


def test_a_cancelled_job_is_not_retried_when_its_engine_dies(jobs: JobStore) -> None:
    job = submit(jobs)
    held = lease(jobs)
    jobs.cancel(job.id)
    assert jobs.end_attempt(held, DIED, max_attempts=3).state == "cancelled"


def test_a_done_job_cannot_be_cancelled(jobs: JobStore) -> None:
    job = submit(jobs)
    make_picture(jobs, lease(jobs))
    with pytest.raises(JobNotCancellableError):
        jobs.cancel(job.id)


def test_a_full_queue_refuses_and_says_when_to_come_back(jobs: JobStore, clock: Clock) -> None:
    done = submit(jobs)
    held = lease(jobs)
    clock.now += 20
    make_picture(jobs, held)
    jobs.submit(parameters(), limits=QueueLimits(max_jobs=1))
    with pytest.raises(QueueFullError) as refused:
        jobs.submit(parameters(), limits=QueueLimits(max_jobs=1))
    assert refused.value.members["retry_after_seconds"] == 20
    assert jobs.get(done.id).state == "done"


def test_an_idempotency_key_names_one_job(jobs: JobStore) -> None:
    def send(digest: str) -> Job:
        return jobs.submit(
            parameters(),
            limits=QueueLimits(max_jobs=10),
            idempotency_key="k",
            request_digest=digest,
        )

    assert send("a").id == send("a").id
    with pytest.raises(IdempotencyConflictError):
        send("b")
    assert jobs.queue().waiting == 1


def test_a_step_the_life_of_a_job_does_not_have_is_refused(jobs: JobStore) -> None:
    submit(jobs)
    held = lease(jobs)
    with pytest.raises(IllegalTransitionError):
        jobs.publish(held, 0, A_PICTURE)  # nothing was decoded
    assert jobs.get(held.job_id).state == "leased"  # and nothing was written


def test_pages_go_back_in_time(jobs: JobStore) -> None:
    ids = [submit(jobs).id for _ in range(5)]
    newest = jobs.page(limit=2)
    older = jobs.page(limit=9, before_seq=newest[-1].seq)
    assert [job.id for job in newest + older] == ids[::-1]
    assert jobs.page(limit=9, states=[JobState.DONE]) == []


def test_an_unknown_job_is_said_so(jobs: JobStore) -> None:
    with pytest.raises(UnknownJobError):
        jobs.get("0" * 32)


def test_a_preview_is_told_and_moves_nothing(jobs: JobStore, store: Store) -> None:
    job = submit(jobs)
    held = lease(jobs)
    jobs.record_preview(held, 0, 2)
    told = store.events.after(job.id, 0, 99)[-1]
    assert (told.kind, told.payload) == ("preview", {"index": 0, "step": 2, "steps": 4})
    assert jobs.get(job.id).pictures[0].state is JobState.ACCEPTED


def test_no_step_is_counted_once_the_latents_are_stored(jobs: JobStore) -> None:
    job = submit(jobs)
    held = lease(jobs)
    jobs.record_latents(held, 0, "x/0.safetensors")
    with pytest.raises(IllegalTransitionError):
        jobs.record_step(held, 0, 1)
    assert jobs.get(job.id).pictures[0].step == job.parameters.num_inference_steps
