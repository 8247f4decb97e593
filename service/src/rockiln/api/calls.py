"""What every dialect does with a picture call: accept it, wait for it, take its pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from flask import g, request

from rockiln.api.admission import KEY_PATTERN, accept_job, largest_size, read_request
from rockiln.api.body import body_turn
from rockiln.api.describe import RequestHeader
from rockiln.api.documents import failure_reason, job_href
from rockiln.api.negotiation import read_preferences
from rockiln.api.problems import JOB_END_SLUGS, ProblemError, kind_of_failure
from rockiln.api.services import services
from rockiln.api.streams import cancel_abandoned
from rockiln.domain.errors import QueueFullError, UnknownArtefactError
from rockiln.domain.fault import MEMORY_FAULTS
from rockiln.domain.job import JobState
from rockiln.domain.request import PictureFormat
from rockiln.store.records import Job

# What a job may be refused with, and a picture call answered with, whatever its dialect.
ACCEPT_PROBLEMS = (
    "invalid-request",
    "unknown-model",
    "idempotency-conflict",
    "queue-full",
    "too-large-for-device",
    "quarantined-request",
    "broken-model",
    "storage-low",
    "store-unavailable",
)
CALL_PROBLEMS = (
    *ACCEPT_PROBLEMS,
    "invalid-json",
    "body-too-large",
    "unsupported-media-type",
    *JOB_END_SLUGS,
)
IDEMPOTENCY_KEY = RequestHeader(
    "With the same key and body the same job answers again.", KEY_PATTERN
)
# Of a dialect whose calls do nothing but wait.
WAITING_CALL_HEADERS = {
    "Idempotency-Key": IDEMPOTENCY_KEY,
    "Prefer": RequestHeader("cancel-on-disconnect to drop the job when you leave."),
}
_BUSY_SECONDS = 5


@dataclass(frozen=True)
class Wanted:
    """A dialect's request in the words of ``POST /generate``.

    Attributes:
        waits: the answer is the end of the job, not a stream.
    """

    content: Mapping[str, Any]
    picture_format: PictureFormat = "png"
    waits: bool = True


def run(read: Callable[[], Wanted]) -> Job:
    """Accepts the job of the request at hand and waits for its end, however it ends.

    Args:
        read: reads the body and says it in our words. What it brought is let go before the wait.

    Raises:
        QueueFullError: also when as many calls wait as may; nothing was accepted then.
        ProblemError: it had not ended when the time to wait was over; it goes on.
    """
    held = services()
    with ExitStack() as stack:
        with body_turn():
            wanted = read()
            waits = wanted.waits
            given = read_request(held, wanted.content)
            if waits:
                stack.enter_context(_place_to_wait())
            job = accept_job(
                held,
                given,
                picture_format=wanted.picture_format,
                idempotency_key=request.headers.get("Idempotency-Key"),
            )
            del wanted, given
        g.job_id = job.id
        return _ended(job) if waits else job


@contextmanager
def _place_to_wait() -> Iterator[None]:
    with services().waiting_room.slot() as taken:
        if not taken:
            raise QueueFullError(
                "as many calls wait as may",
                reason="waiting",
                retry_after_seconds=_BUSY_SECONDS,
            )
        yield


def wait(job: Job, seconds: float) -> Job:
    """The job when it has ended, the time is over or its client left, who may have it cancelled."""
    if job.ended:
        return job
    held = services()
    # gunicorn's name for the connection; other servers have none, and wait to the end.
    client = request.environ.get("gunicorn.socket")
    awaited = held.waiting_room.wait(job.id, seconds, client)
    g.client_left = awaited.client_left
    if g.client_left and cancels_on_disconnect():
        cancel_abandoned(held.store, job.id)
    return awaited.job or held.store.jobs.get(job.id)


def _ended(job: Job) -> Job:
    seconds = services().settings.wait_seconds
    job = wait(job, seconds)
    if not job.ended:
        raise ProblemError(
            "still-running",
            f"the picture was not there after {seconds:g} s",
            job_id=job.id,
            job=job_href(job.id),
        )
    return job


def cancels_on_disconnect() -> bool:
    """Whether the client of the request at hand wants its job dropped when it leaves."""
    return read_preferences(request.headers.get("Prefer", "")).cancel_on_disconnect


def failure(job: Job) -> ProblemError:
    """Why a job that ended has no pictures."""
    kind = kind_of_failure(job.state, job.failure_code)
    if job.state is JobState.CANCELLED:
        return ProblemError(kind.slug, "the job was cancelled", job_id=job.id)
    members: dict[str, Any] = {}
    if job.failure_code in MEMORY_FAULTS:
        members["largest_size"] = largest_size(services(), job.parameters)
    return ProblemError(
        kind.slug,
        job.failure_detail or "the worker gave no detail",
        job_id=job.id,
        job=job_href(job.id),
        reason=failure_reason(job),
        attempts=job.attempt,
        **members,
    )


def picture_files(job: Job) -> list[bytes]:
    """The pictures of a job that is done. Raises UnknownArtefactError."""
    artefacts = services().store.artefacts
    try:
        return [
            artefacts.picture_path(picture.digest, job.parameters.format).read_bytes()
            for picture in job.pictures
            if picture.digest is not None
        ]
    except FileNotFoundError as error:
        raise UnknownArtefactError(
            "a picture's file was removed from this host", job_id=job.id
        ) from error
