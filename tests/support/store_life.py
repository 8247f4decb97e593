"""Takes jobs through a store without an engine: the bytes of a picture follow from its seed."""

from __future__ import annotations

from rockiln.domain.job import JobState
from rockiln.store.records import Job, Lease, Picture, QueueLimits
from rockiln.store.store import Store
from support.parameters import parameters

LIMITS = QueueLimits(max_jobs=100_000)


def picture_bytes(seed: int) -> bytes:
    """Long enough to be torn."""
    return f"picture {seed} ".encode() * 700


def work(store: Store, lease: Lease, job: Job) -> Job:
    """The whole way of a leased job of one picture, as worker and engine go it."""
    data = picture_bytes(job.parameters.seed)
    if job.pictures[0].latents is None:
        store.jobs.record_step(lease, 0, 1)
        store.jobs.record_latents(lease, 0, store.artefacts.put_latents(job.id, 0, data))
    store.jobs.record_decode_started(lease, 0)
    digest = store.artefacts.put_picture(data, job.parameters.format)
    picture = Picture(0, JobState.PUBLISHED, 4, None, digest, len(data), {}, (), {})
    done = store.jobs.publish(lease, 0, picture)
    store.artefacts.drop_latents(job.id)
    return done


def make_job(store: Store, *, seed: int, owner: str = "", worker: str = "maker") -> Job:
    """Submits a job and makes what is leased until that one is done."""
    wanted = store.jobs.submit(parameters(seed=seed), limits=LIMITS, owner=owner)
    while not store.jobs.get(wanted.id).ended:
        leased = store.jobs.lease_next(worker=worker, seconds=60)
        if leased is None:
            raise AssertionError(f"job {wanted.id} is not to be had")
        work(store, *leased)
    return store.jobs.get(wanted.id)


def published(store: Store, job: Job) -> list[bytes]:
    """The bytes of the job's pictures."""
    fresh = store.jobs.get(job.id)
    return [
        store.artefacts.picture_path(str(picture.digest), fresh.parameters.format).read_bytes()
        for picture in fresh.pictures
    ]
