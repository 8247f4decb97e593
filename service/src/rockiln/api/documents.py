"""What the API answers, as models: the same classes write the answers and the OpenAPI document."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from rockiln.domain.job import JobState
from rockiln.domain.request import GenerationParameters, PictureFormat
from rockiln.store.records import EndedAttempt, Event, Job, Picture, Place

MEDIA_TYPES: dict[PictureFormat, str] = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
}
# Clients see a quarantined job as failed; the failure's reason says which of the two it is.
PublicState = Literal[
    "accepted", "leased", "denoising", "latents_stored", "decoding", "encoded", "published",
    "done", "retry_wait", "failed", "cancelled",
]  # fmt: skip


_PUBLIC_STATES: dict[JobState, PublicState] = {
    **{JobState(name): name for name in get_args(PublicState)},
    JobState.QUARANTINED: "failed",
}


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True)


class FieldError(_Document):
    """One thing that is wrong with one field."""

    field: str = Field(description="Name of the field, header or parameter.")
    message: str
    limit: dict[str, Any] | None = Field(default=None, description="What the field may be.")
    hint: str | None = None


class Problem(_Document):
    """A problem document (RFC 9457). Further members depend on the type."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str = Field(description="Address of a page about this kind of problem.")
    title: str
    status: int = Field(ge=400, le=599)
    detail: str = Field(description="What is wrong in this case.")
    instance: str = Field(description="The path that was called.")
    code: str = Field(description="The type as one word, for programs.")
    hint: str = Field(description="What to do about it.")
    errors: list[FieldError] | None = None


class Failure(_Document):
    """Why a job ended without its pictures, or why its last attempt did."""

    reason: str = Field(description="Code of the fault, or quarantined.")
    detail: str
    type: str = Field(description="Address of a page about this kind of problem.")


class Progress(_Document):
    """How far a job is, over all its pictures."""

    steps_done: int
    steps_total: int
    pictures_done: int
    pictures_total: int


class PictureDocument(_Document):
    """One picture of a job."""

    index: int
    state: PublicState
    seed: int = Field(description="With this seed and num_images 1 the picture comes out again.")
    step: int = Field(description="Denoising steps done.")
    href: str | None = Field(description="Where the picture is, once it is published.")
    media_type: str
    size_bytes: int | None
    sha256: str | None
    warnings: list[str]
    seconds: dict[str, float] = Field(description="Time per stage.")
    policies: list[str] = Field(description="Optimisations that were in force.")
    details: dict[str, Any] = Field(description="What the picture file itself records.")
    base64: str | None = Field(
        default=None, description="The picture, in the answer of a POST /generate that waited."
    )


class QueueDocument(_Document):
    """Where a waiting job stands."""

    position: int = Field(ge=1, description="1 is next, between equals.")
    eta_seconds: float = Field(description="Estimated work ahead of it.")


class AttemptDocument(_Document):
    """An attempt that ended without its pictures."""

    attempt: int
    reason: str = Field(description="Code of the fault.")
    stage: str | None = Field(description="Where it struck, if anybody knows.")
    detail: str
    type: str = Field(description="Address of a page about this kind of problem.")
    ended_at: datetime
    next_rungs: dict[str, str] | None = Field(
        description="The safer way of working that the next attempt was to take."
    )
    evidence: str | None = Field(
        description="File with all that is known of the death, under artefacts/evidence."
    )


class JobDocument(_Document):
    """A job as of one moment."""

    id: str = Field(pattern="^[0-9a-f]{32}$")
    href: str
    state: PublicState
    failure: Failure | None
    accepted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    seconds: dict[str, float] = Field(description="Time spent waiting and running so far.")
    attempt: int
    cancel_requested: bool
    parameters: GenerationParameters
    progress: Progress
    warnings: list[str] = Field(description="Of all pictures, each once.")
    pictures: list[PictureDocument]
    purpose: str = Field(description="picture, or warm_up for kernels compiled ahead.")
    estimated_seconds: float = Field(description="What it was expected to take, when accepted.")
    rungs: dict[str, str] | None = Field(
        description="The safer way of working that the next attempt takes, after a fault."
    )
    queue: QueueDocument | None = Field(
        default=None, description="In the answer of one job that waits."
    )
    attempts: list[AttemptDocument] | None = Field(
        default=None, description="Those that failed, in the answer of one job."
    )


class EventDocument(_Document):
    """One line of the log of what happened to a job."""

    seq: int = Field(description="Counts over all jobs; later is larger.")
    kind: str = Field(description="A state that was reached, or step.")
    at: datetime
    payload: dict[str, Any]


class StreamedEvent(EventDocument):
    """One line of a job's log, as a stream tells it."""

    eta_seconds: float | None = Field(
        default=None, description="With a step: until the last step of the last picture."
    )
    preview: str | None = Field(
        default=None,
        description="With a preview, while it is kept: a JPEG of at most 256 px, in base64.",
    )


class EventList(_Document):
    """One page of a job's log, oldest first."""

    events: list[EventDocument]
    next: str | None = Field(description="Where to go on; null once the job has ended.")


def event_document(event: Event) -> EventDocument:
    return EventDocument(**_told(event))


def streamed_event(
    event: Event, *, eta_seconds: float | None = None, preview: bytes | None = None
) -> StreamedEvent:
    """The line with what only a stream says."""
    shown = None if preview is None else base64.b64encode(preview).decode("ascii")
    return StreamedEvent(**_told(event), eta_seconds=eta_seconds, preview=shown)


def _told(event: Event) -> dict[str, Any]:
    kind = "failed" if event.kind == JobState.QUARANTINED else event.kind
    return {"seq": event.seq, "kind": kind, "at": _time(event.at), "payload": event.payload}


class JobList(_Document):
    """One page of jobs, newest first."""

    jobs: list[JobDocument]
    next: str | None = Field(description="Address of the next page.")


def public_state(state: JobState) -> PublicState:
    """The state that clients see."""
    return _PUBLIC_STATES[state]


def job_href(job_id: str) -> str:
    return f"/jobs/{job_id}"


def picture_href(job_id: str, index: int) -> str:
    return f"/jobs/{job_id}/artefacts/{index}"


def job_document(
    job: Job,
    *,
    pictures: dict[int, bytes] | None = None,
    place: Place | None = None,
    attempts: Sequence[EndedAttempt] | None = None,
) -> JobDocument:
    """A job for clients.

    Args:
        pictures: index → file contents to put into the document.
    """
    contents = pictures or {}
    steps = job.parameters.total_steps
    return JobDocument(
        id=job.id,
        href=job_href(job.id),
        state=public_state(job.state),
        failure=_failure(job),
        accepted_at=_time(job.accepted_at),
        started_at=None if job.started_at is None else _time(job.started_at),
        ended_at=None if job.ended_at is None else _time(job.ended_at),
        seconds=_seconds(job),
        attempt=job.attempt,
        cancel_requested=job.cancel_requested,
        parameters=job.parameters,
        progress=Progress(
            steps_done=sum(min(picture.step, steps) for picture in job.pictures),
            steps_total=steps * len(job.pictures),
            pictures_done=sum(picture.digest is not None for picture in job.pictures),
            pictures_total=len(job.pictures),
        ),
        warnings=job_warnings(job),
        pictures=[_picture(job, picture, contents.get(picture.index)) for picture in job.pictures],
        purpose=job.purpose,
        estimated_seconds=job.estimated_seconds,
        rungs=job.rungs,
        queue=None
        if place is None
        else QueueDocument(position=place.position, eta_seconds=round(place.seconds_ahead, 1)),
        attempts=None if attempts is None else list(map(attempt_document, attempts)),
    )


def attempt_document(attempt: EndedAttempt) -> AttemptDocument:
    """A failed attempt for clients."""
    return AttemptDocument(
        attempt=attempt.attempt,
        reason=attempt.code,
        stage=attempt.stage,
        detail=attempt.detail,
        type=problem_href(attempt.code),
        ended_at=_time(attempt.at),
        next_rungs=attempt.rungs,
        evidence=attempt.evidence,
    )


def problem_href(reason: str) -> str:
    """The page about a fault or a problem."""
    return f"/problems/{reason.replace('_', '-')}"


def job_warnings(job: Job) -> list[str]:
    """The warnings of all pictures, each once, in order."""
    return list(dict.fromkeys(text for picture in job.pictures for text in picture.warnings))


def failure_reason(job: Job) -> str | None:
    """The code that says why a job failed, or None."""
    return "quarantined" if job.state is JobState.QUARANTINED else job.failure_code


def _failure(job: Job) -> Failure | None:
    reason = failure_reason(job)
    if reason is None:
        return None
    return Failure(
        reason=reason,
        detail=job.failure_detail or "",
        type=problem_href(reason),
    )


def _picture(job: Job, picture: Picture, content: bytes | None) -> PictureDocument:
    published = picture.digest is not None
    policies = picture.details.get("policies")
    return PictureDocument(
        index=picture.index,
        state=public_state(picture.state),
        seed=job.parameters.picture_seed(picture.index),
        step=picture.step,
        href=picture_href(job.id, picture.index) if published else None,
        media_type=MEDIA_TYPES[job.parameters.format],
        size_bytes=picture.size_bytes,
        sha256=picture.digest,
        warnings=list(picture.warnings),
        seconds=picture.seconds,
        policies=policies if isinstance(policies, list) else [],
        details=picture.details,
        base64=None if content is None else base64.b64encode(content).decode("ascii"),
    )


def _seconds(job: Job) -> dict[str, float]:
    spans: dict[str, float] = {}
    if job.started_at is not None:
        spans["waiting"] = round(job.started_at - job.accepted_at, 3)
        if job.ended_at is not None:
            spans["running"] = round(job.ended_at - job.started_at, 3)
    if job.ended_at is not None:
        spans["total"] = round(job.ended_at - job.accepted_at, 3)
    return spans


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
