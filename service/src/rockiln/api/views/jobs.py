"""Jobs that were accepted: list, look, cancel, fetch the pictures."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlencode

from flask import Blueprint, Response, g, request
from pydantic import BaseModel, ConfigDict, Field

from rockiln.api.access import may_see, owner_to_see
from rockiln.api.calls import ACCEPT_PROBLEMS, IDEMPOTENCY_KEY
from rockiln.api.describe import Answered, Operation, RequestHeader, describe
from rockiln.api.documents import (
    MEDIA_TYPES,
    EventList,
    JobDocument,
    JobList,
    PublicState,
    event_document,
    job_document,
    job_href,
    public_state,
)
from rockiln.api.guards import own_origin
from rockiln.api.job_feed import JobFeed
from rockiln.api.json_answers import answer
from rockiln.api.negotiation import read_preferences
from rockiln.api.problems import ProblemError
from rockiln.api.repeats import repeat_job
from rockiln.api.services import services
from rockiln.api.streams import STREAM_TYPE, StreamResponse
from rockiln.api.validation import validate
from rockiln.domain.errors import InvalidRequestError, UnknownArtefactError, UnknownJobError
from rockiln.domain.job import JobState
from rockiln.store.artefacts import SUFFIXES
from rockiln.store.records import Event, Job

blueprint = Blueprint("jobs", __name__)

_JOB_ID = re.compile(r"[0-9a-f]{32}")
# SQLite's largest integer: what is longer is no place in a listing.
_CURSOR_MAX = 2**63 - 1
EVENT_ID_PATTERN = "^[0-9]{1,19}$"


class JobsQuery(BaseModel):
    """Parameters of the listing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: Annotated[int, Field(ge=1, le=100, description="Jobs on a page.")] = 20
    before: Annotated[
        int | None, Field(ge=1, le=_CURSOR_MAX, description="Where the page before ended.")
    ] = None
    state: Annotated[PublicState | None, Field(description="Only jobs in this state.")] = None


class DeletionQuery(BaseModel):
    """Parameters of a deletion."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    purge: Annotated[
        bool,
        Field(
            description="Delete the job with its pictures and its log, whatever its state. Without "
            "it a job that has just ended keeps its pictures: 409."
        ),
    ] = False


class EventsQuery(BaseModel):
    """Parameters of a job's log."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    after: Annotated[
        int, Field(ge=0, le=_CURSOR_MAX, description="Number of the last line you have.")
    ] = 0
    limit: Annotated[int, Field(ge=1, le=1000, description="Lines on a page.")] = 200
    cancel_on_disconnect: Annotated[
        bool,
        Field(description="Of a stream: cancel the job when you leave and stay away for 5 s."),
    ] = False


def find_job(job_id: str) -> Job:
    """The job of an address. Raises UnknownJobError."""
    if _JOB_ID.fullmatch(job_id) is None:
        raise UnknownJobError("a job id is 32 characters from 0-9 and a-f")
    g.job_id = job_id
    job = services().store.jobs.get(job_id)
    if not may_see(job):  # as if it were not there: an id tells nobody that it is
        raise UnknownJobError(f"no job {job_id!r}")
    return job


@blueprint.get("/jobs")
@describe(
    Operation(
        summary="The jobs that are kept, newest first",
        query=JobsQuery,
        answers={200: Answered("One page.", {"application/json": JobList})},
        problems=("invalid-request", "store-unavailable"),
    )
)
def list_jobs() -> Response:
    query = validate(JobsQuery, _query_parameters())
    states = tuple(state for state in JobState if public_state(state) == query.state)
    jobs = services().store.jobs.page(
        limit=query.limit + 1, before_seq=query.before, states=states, owner=owner_to_see()
    )
    shown = jobs[: query.limit]
    following = None
    if len(jobs) > query.limit:
        parameters = {**query.model_dump(exclude_none=True), "before": shown[-1].seq}
        following = f"/jobs?{urlencode(parameters)}"
    return answer(JobList(jobs=[job_document(job) for job in shown], next=following))


@blueprint.get("/jobs/<job_id>")
@describe(
    Operation(
        summary="One job with its state, progress and pictures",
        answers={200: Answered("The job.", {"application/json": JobDocument})},
        problems=("unknown-job", "store-unavailable"),
    )
)
def get_job(job_id: str) -> Response:
    return answer(described(find_job(job_id)))


def described(job: Job) -> JobDocument:
    """The job with its place in the queue and its failed attempts."""
    store = services().store
    place = None if job.ended else store.jobs.place(job.id)
    return job_document(job, place=place, attempts=store.attempts.of(job.id))


@blueprint.get("/jobs/<job_id>/events")
@describe(
    Operation(
        summary="What happened to a job, oldest first, or as it happens",
        description="With Accept: text/event-stream a stream of all of it, from the start or from "
        "after Last-Event-ID, up to the job's end; each event's data is a StreamedEvent. "
        "Else a page: go on at next; where it is empty, ask again later.",
        query=EventsQuery,
        headers={
            "Accept": RequestHeader("text/event-stream, or application/json for a page."),
            "Last-Event-ID": RequestHeader("Number of the last event you have.", EVENT_ID_PATTERN),
            "Prefer": RequestHeader("cancel-on-disconnect, as the parameter of that name."),
        },
        answers={
            200: Answered(
                "One page, or the stream.",
                {"application/json": EventList, STREAM_TYPE: None},
            ),
            204: Answered("The job has ended and you have all of it: do not come back."),
        },
        problems=(
            "invalid-request",
            "cross-origin-request",
            "unknown-job",
            "too-many-streams",
            "store-unavailable",
        ),
    )
)
def list_events(job_id: str) -> Response:
    query = validate(EventsQuery, _query_parameters())
    job = find_job(job_id)
    if request.accept_mimetypes.best_match(["application/json", STREAM_TYPE]) == STREAM_TYPE:
        return _stream_events(job, query)
    events = services().store.events.after(job.id, query.after, query.limit)
    last = events[-1].seq if events else query.after
    more = not job.ended or len(events) == query.limit
    following = urlencode({"after": last, "limit": query.limit})
    return answer(
        EventList(
            events=list(map(event_document, events)),
            next=f"/jobs/{job.id}/events?{following}" if more else None,
        )
    )


def _stream_events(job: Job, query: EventsQuery) -> Response:
    held = services()
    cancels = query.cancel_on_disconnect
    cancels = cancels or read_preferences(request.headers.get("Prefer", "")).cancel_on_disconnect
    if cancels and not own_origin():
        raise ProblemError("cross-origin-request", "a page of another origin may cancel nothing")
    events, after = held.store.events, _last_event_id(query)
    if after > events.last_seq():  # of a store that was restored since
        after = 0
    feed = JobFeed(job, held.store.artefacts)
    if job.ended and not events.after(job.id, after, 1):
        if after:
            return Response(status=204)
        # Its log is no longer kept: the end is all there is to tell.
        end = Event(0, job.id, job.state, {}, job.ended_at or job.accepted_at)
        return Response(feed.told(end), mimetype=STREAM_TYPE)
    return StreamResponse(held.streams, feed, after=after, cancels=cancels)


def _last_event_id(query: EventsQuery) -> int:
    given = request.headers.get("Last-Event-ID")
    if given is None:
        return query.after
    if re.fullmatch(EVENT_ID_PATTERN, given) is None or int(given) > _CURSOR_MAX:
        message = "it is no number of an event"
        raise InvalidRequestError(
            f"Last-Event-ID: {message}", errors=[{"field": "Last-Event-ID", "message": message}]
        )
    return int(given)


@blueprint.delete("/jobs/<job_id>")
@describe(
    Operation(
        summary="Cancel a job, or delete it for good",
        description="A waiting job ends at once; a running one at its next step.",
        query=DeletionQuery,
        answers={
            200: Answered("It is cancelled.", {"application/json": JobDocument}),
            202: Answered("The worker was asked to drop it.", {"application/json": JobDocument}),
            204: Answered("It is deleted, as `purge` asked."),
        },
        problems=("invalid-request", "unknown-job", "job-not-cancellable", "store-unavailable"),
    )
)
def delete_job(job_id: str) -> Response:
    query = validate(DeletionQuery, _query_parameters())
    job = find_job(job_id)
    if query.purge:
        services().store.purge(job.id)
        return Response(status=204)
    job = services().store.cancel(job.id)
    return answer(job_document(job), 200 if job.ended else 202)


@blueprint.post("/jobs/<job_id>/retry")
@describe(
    Operation(
        summary="Send the same again, as a job of its own",
        description="With the parameters, the seed and the pictures of that job, whatever its "
        "state. There is no body.",
        headers={"Idempotency-Key": IDEMPOTENCY_KEY},
        answers={
            202: Answered(
                "Accepted; GET the job at Location.",
                {"application/json": JobDocument},
                {"Location": "Address of the new job."},
            )
        },
        problems=(*ACCEPT_PROBLEMS, "unknown-job", "unknown-artefact"),
    )
)
def retry_job(job_id: str) -> Response:
    job = find_job(job_id)
    made = repeat_job(job, idempotency_key=request.headers.get("Idempotency-Key"))
    response = answer(described(made), 202)
    response.headers["Location"] = job_href(made.id)
    return response


@blueprint.get("/jobs/<job_id>/artefacts/<index>")
@describe(
    Operation(
        summary="A picture of a job",
        description="Its bytes never change, so it may be cached for ever. Ranges are honoured.",
        answers={
            200: Answered("The picture.", dict.fromkeys(MEDIA_TYPES.values())),
            206: Answered("The range asked for.", dict.fromkeys(MEDIA_TYPES.values())),
            304: Answered("The copy you have is good."),
        },
        problems=("unknown-job", "unknown-artefact", "range-not-satisfiable", "store-unavailable"),
    )
)
def get_artefact(job_id: str, index: str) -> Response:
    job = find_job(job_id)
    place = int(index) if re.fullmatch(r"[0-9]{1,4}", index) else len(job.pictures)
    if place >= len(job.pictures):
        raise UnknownArtefactError(f"the job has {len(job.pictures)} pictures, counted from 0")
    digest = job.pictures[place].digest
    if digest is None:
        raise UnknownArtefactError(
            "the picture is not there yet" if not job.ended else "the picture was never made",
            state=public_state(job.state),
        )
    picture_format = job.parameters.format
    try:
        data = services().store.artefacts.picture_path(digest, picture_format).read_bytes()
    except FileNotFoundError as error:
        raise UnknownArtefactError("the picture's file was removed from this host") from error
    response = Response(data, mimetype=MEDIA_TYPES[picture_format])
    file_name = f"{job.id}-{place}{SUFFIXES[picture_format]}"
    response.headers["Content-Disposition"] = f'inline; filename="{file_name}"'
    response.headers["Cache-Control"] = "private, max-age=31536000, immutable"
    response.set_etag(digest)
    response.make_conditional(request, accept_ranges=True, complete_length=len(data))
    return response


def _query_parameters() -> dict[str, str]:
    repeated = [name for name, values in request.args.lists() if len(values) > 1]
    if repeated:
        message = "it comes more than once"
        raise InvalidRequestError(
            f"{repeated[0][:64]}: {message}",
            errors=[{"field": repeated[0][:64], "message": message}],
        )
    return request.args.to_dict()
