"""``POST /generate``: a request in, a picture out, or a job to ask for later."""

from __future__ import annotations

import json

from flask import Blueprint, Response, g, request

from rockiln.api.admission import accept_job, read_request
from rockiln.api.body import body_turn, read_object
from rockiln.api.calls import CALL_PROBLEMS, IDEMPOTENCY_KEY, failure, picture_files, wait
from rockiln.api.describe import Answered, Operation, RequestHeader, describe
from rockiln.api.documents import (
    MEDIA_TYPES,
    JobDocument,
    job_document,
    job_href,
    job_warnings,
)
from rockiln.api.json_answers import answer
from rockiln.api.negotiation import Answer, Preferences, choose_answer, read_preferences
from rockiln.api.problems import ProblemError, problem_response
from rockiln.api.services import services
from rockiln.domain.job import JobState
from rockiln.domain.request import GenerationRequest
from rockiln.store.records import Job

blueprint = Blueprint("generate", __name__)

_WARNINGS_MAX_CHARS = 2000
# Of a form: what is text whatever it looks like, and what is a picture.
_TEXT_FIELDS = frozenset(
    {"prompt", "negative_prompt", "model", "scheduler", "format", "prompt_syntax"}
)
_FILE_FIELDS = frozenset({"image", "mask"})
_JOB_HEADERS = {
    "Rockiln-Job-Id": "Id of the job.",
    "Rockiln-Seed": "Seed of the first picture.",
    "Rockiln-Model": "Model that was used.",
    "Rockiln-Warnings": "Sentences for the person, as a JSON list in ASCII; absent if none.",
    "Content-Location": "Address of the job.",
}


@blueprint.post("/generate")
@describe(
    Operation(
        summary="Make pictures from a prompt",
        description="Waits for the picture and answers it. Answers 202 and the job instead when "
        "asked to, when the wait ends first, or when too many calls wait already; the job goes on "
        "in any case, also when the client disconnects.",
        body=GenerationRequest,
        forms=True,
        headers={
            "Accept": RequestHeader(
                "image/png, image/jpeg, image/webp, or application/json for the pictures in "
                "base64 with everything known about them."
            ),
            "Prefer": RequestHeader(
                "respond-async to get 202 at once; wait=N to wait at most N seconds; "
                "cancel-on-disconnect to drop the job when you leave."
            ),
            "Idempotency-Key": IDEMPOTENCY_KEY,
        },
        answers={
            200: Answered(
                "The picture, or the job with its pictures.",
                {**dict.fromkeys(MEDIA_TYPES.values()), "application/json": JobDocument},
                _JOB_HEADERS,
            ),
            202: Answered(
                "Accepted; GET the job at Location.",
                {"application/json": JobDocument},
                {
                    "Location": "Address of the job.",
                    "Preference-Applied": "What of Prefer was followed.",
                    **_JOB_HEADERS,
                },
            ),
        },
        problems=(*CALL_PROBLEMS, "not-acceptable"),
    )
)
def generate() -> Response:
    held = services()
    preferences = read_preferences(request.headers.get("Prefer", ""))
    seconds = preferences.seconds_to_wait(held.settings.wait_seconds)
    job, chosen = _accept(waits=seconds > 0)
    g.job_id = job.id
    warnings = list(chosen.warnings)
    if seconds > 0 and not job.ended:
        job, note = _wait(job, seconds)
        warnings += note
    return _answer(job, chosen, preferences, warnings)


def _accept(*, waits: bool) -> tuple[Job, Answer]:
    """The job and the form of its answer. What the body brought is let go on return."""
    held = services()
    with body_turn():
        wanted = read_request(held, read_object(_TEXT_FIELDS, _FILE_FIELDS))
        chosen = choose_answer(request.accept_mimetypes, wanted.format)
        if waits:
            _refuse_many_in_one(wanted, chosen)
        job = accept_job(
            held,
            wanted,
            picture_format=chosen.picture_format,
            idempotency_key=request.headers.get("Idempotency-Key"),
        )
    return job, chosen


def _refuse_many_in_one(wanted: GenerationRequest, chosen: Answer) -> None:
    if chosen.kind == "picture" and wanted.num_images > 1:
        raise ProblemError(
            "not-acceptable",
            f"num_images is {wanted.num_images}, and a picture answer carries one picture",
            hint="Send Accept: application/json to get them all, or Prefer: respond-async and "
            "fetch each from the job.",
        )


def _wait(job: Job, seconds: float) -> tuple[Job, list[str]]:
    with services().waiting_room.slot() as taken:
        if not taken:
            return job, ["as many calls wait as may; ask for the job instead"]
        return wait(job, seconds), []


def _answer(job: Job, chosen: Answer, preferences: Preferences, warnings: list[str]) -> Response:
    if not job.ended or (preferences.respond_async and preferences.wait_seconds is None):
        response = answer(job_document(job), 202)
        response.headers["Location"] = job_href(job.id)
    elif job.state is not JobState.DONE:
        response = _failed(job)
    else:
        response = _done(job, chosen)
    applied = preferences.applied(answered_async=response.status_code == 202)  # noqa: PLR2004
    if applied is not None:
        response.headers["Preference-Applied"] = applied
    response.headers["Content-Location"] = job_href(job.id)
    response.headers["Rockiln-Job-Id"] = job.id
    response.headers["Rockiln-Seed"] = str(job.parameters.seed)
    response.headers["Rockiln-Model"] = job.parameters.model
    response.headers["Vary"] = "Accept, Prefer"
    said = [*warnings, *job_warnings(job)]
    if said:
        response.headers["Rockiln-Warnings"] = _as_header(said)
    return response


def _done(job: Job, chosen: Answer) -> Response:
    # Several pictures under a picture Accept: an earlier job of the same Idempotency-Key.
    files = picture_files(job)
    if chosen.kind == "json" or len(files) > 1:
        return answer(job_document(job, pictures=dict(enumerate(files))))
    return Response(files[0], mimetype=MEDIA_TYPES[job.parameters.format])


def _failed(job: Job) -> Response:
    error = failure(job)
    return problem_response(error.kind, error.detail, **error.members)


def _as_header(warnings: list[str]) -> str:
    text = json.dumps(warnings)
    return text if len(text) <= _WARNINGS_MAX_CHARS else json.dumps(["see the warnings of the job"])
