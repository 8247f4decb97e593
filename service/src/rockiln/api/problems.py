"""Every way a call can end badly, in one table: cause → status → title → hint → retry or not.

The slug is part of the interface: it never changes once released. ``type`` of a problem document
is ``/problems/<slug>``, a page that this service serves from the same table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from flask import Response, request

from rockiln.api.documents import FieldError, Problem
from rockiln.domain.errors import RockilnError

PROBLEM_TYPE = "application/problem+json"
_UNAUTHORIZED = 401


class ProblemError(RockilnError):
    """A condition of HTTP itself, by its slug. Conditions of the service are domain errors."""

    def __init__(self, slug: str, detail: str, **members: Any) -> None:
        super().__init__(detail, **members)
        self.kind = KINDS[slug]


@dataclass(frozen=True)
class ProblemKind:
    """One row of the table.

    Attributes:
        retry_helps: whether the same call may succeed later; sent as ``x-should-retry``.
    """

    slug: str
    status: int
    title: str
    hint: str
    retry_helps: bool = False

    @property
    def type(self) -> str:
        return f"/problems/{self.slug}"

    @property
    def code(self) -> str:
        return self.slug.replace("-", "_")


_CALLS = (
    # The call itself
    ProblemKind("invalid-request", 400, "The request is not valid",
                "Correct the fields named in errors; GET /openapi.json has every limit."),
    ProblemKind("invalid-json", 400, "The body is not JSON",
                "Send one JSON object, in UTF-8, without NaN, Infinity or repeated names."),
    ProblemKind("bad-request", 400, "The request cannot be read",
                "Check the request line and the headers."),
    ProblemKind("missing-key", 401, "A key is needed",
                "Send Authorization: Bearer KEY; rockiln keys create makes one on the host."),
    ProblemKind("insufficient-scope", 403, "The key does not open this",
                "Use a key with the scope that is named; rockiln keys create makes one."),
    ProblemKind("wrong-form-token", 403, "The form is not one that this browser got from here",
                "Load the page anew and send its form again; cookies of this service are needed."),
    ProblemKind("cross-origin-request", 403, "Another site may not change anything here",
                "Call the API from a program, or from a page that this service served."),
    ProblemKind("unknown-route", 404, "There is nothing at this address",
                "GET /docs lists every route."),
    ProblemKind("unknown-model", 404, "No such model",
                "GET /models lists the models of this host."),
    ProblemKind("unknown-job", 404, "No such job",
                "GET /jobs lists the jobs that are kept."),
    ProblemKind("unknown-artefact", 404, "No such picture",
                "GET the job: its pictures have an href once they are there."),
    ProblemKind("unknown-problem", 404, "No such problem",
                "GET /docs lists every problem."),
    ProblemKind("method-not-allowed", 405, "The route does not take this method",
                "The Allow header names the methods it takes."),
    ProblemKind("not-acceptable", 406, "None of the accepted types can be sent",
                "Accept image/png, image/jpeg, image/webp or application/json."),
    ProblemKind("request-timeout", 408, "The request did not arrive in time",
                "Send the whole request at once.", retry_helps=True),
    ProblemKind("job-not-cancellable", 409, "The job has ended",
                "Nothing is left to cancel; GET the job for its result."),
    ProblemKind("job-not-waiting", 409, "The job does not wait",
                "Only a job that waits has a place in the queue; GET the job for its state."),
    ProblemKind("gated-model", 409, "The model's licence has to be accepted first",
                "Read licence_page, accept it there with the account of the fetcher's token, then "
                "run command."),
    ProblemKind("unsupported-model", 409, "This version cannot run the model",
                "GET /models lists the models that it can run."),
    ProblemKind("model-installed", 409, "The model is here already",
                "Use it; delete it first to download it anew."),
    ProblemKind("model-elsewhere", 409, "The model is not in the service's own folder",
                "Change it where it is; only what was downloaded is managed here."),
    ProblemKind("model-in-use", 409, "Jobs that are not done use the model",
                "Wait until they are done, or cancel them; GET /jobs lists them."),
    ProblemKind("model-busy", 409, "Something else is being done with the model",
                "GET the model: its task says what, and how far it is."),
    ProblemKind("nothing-to-cancel", 409, "Nothing is being done with the model",
                "GET the model: its task says how the last one ended."),
    ProblemKind("no-space-for-model", 409, "The disk does not hold the model",
                "Free some space, or remove a model: rockiln models rm MODEL."),
    ProblemKind("length-required", 411, "The length of the body is missing",
                "Send Content-Length or a chunked body."),
    ProblemKind("body-too-large", 413, "The body is too large",
                "Send a shorter body; the limit is in limit."),
    ProblemKind("address-too-long", 414, "The address is too long",
                "Put parameters into the body."),
    ProblemKind("unsupported-media-type", 415, "The body has a type that is not taken here",
                "Send JSON with the header Content-Type: application/json."),
    ProblemKind("range-not-satisfiable", 416, "The picture has no such range",
                "Ask for a range inside the picture, or for all of it."),
    ProblemKind("misdirected-request", 421, "This service does not answer to that host name",
                "Use the published address, or add the name to the setting allowed_hosts."),
    ProblemKind("idempotency-conflict", 422, "The Idempotency-Key belongs to another request",
                "Use a new key for a new request; repeat the first body to get its job."),
    ProblemKind("too-large-for-device", 422, "No device here can make a picture this large",
                "Use largest_size, or a model that needs less memory."),
    ProblemKind("quarantined-request", 422, "A request like this killed the engine again and again",
                "Change the size, scheduler or model, or wait until Retry-After is over."),
    ProblemKind("headers-too-large", 431, "The headers are too large",
                "Send fewer or shorter headers."),
    # The state of the service
    ProblemKind("queue-full", 429, "Too many jobs wait",
                "Send it again after the time in Retry-After.", retry_helps=True),
    ProblemKind("too-many-streams", 429, "Too many streams are open",
                "Close some, or ask for the job now and then.", retry_helps=True),
    ProblemKind("internal-error", 500, "The service made a mistake",
                "The log has the traceback under this request_id; please report it."),
    ProblemKind("broken-model", 503, "The model's files cannot be used",
                "Repair or replace the model; GET /models says what is wrong with it."),
    ProblemKind("storage-low", 503, "The disk is nearly full",
                "Free some space on the data disk of the host.", retry_helps=True),
    ProblemKind("not-ready", 503, "The service is not ready to make pictures",
                "The failed checks say what is missing; jobs are accepted all the same.",
                retry_helps=True),
    ProblemKind("store-unavailable", 503, "The job store does not answer",
                "Check the disk and the rights of the data folder; nothing was accepted.",
                retry_helps=True),
    # What the proxy says by itself
    ProblemKind("too-many-calls", 429, "Too many calls are open",
                "Send it again after the time in Retry-After.", retry_helps=True),
    ProblemKind("proxy-unavailable", 503, "The api is restarting",
                "Accepted jobs are safe. Send it again in some seconds.", retry_helps=True),
    ProblemKind("still-running", 504, "The picture is not there yet",
                "The job goes on: GET it at job, and its picture from there."),
    ProblemKind("proxy-timeout", 504, "The api did not answer in time",
                "Accepted jobs are safe. GET /jobs lists them; or send Prefer: respond-async."),
)  # fmt: skip

# The end of a job, told to a call that waited for it: a row per fault code, and two states.
_ENDS = (
    ProblemKind("job-cancelled", 409, "The job was cancelled",
                "Send the request again if the picture is wanted after all."),
    ProblemKind("quarantined", 500, "The job killed the engine again and again",
                "It is not tried again; change the request. The job names its evidence file."),
    ProblemKind("request-bug", 422, "The engine cannot run this request",
                "Change what the detail names."),
    ProblemKind("gpu-oom", 422, "The GPU's memory is too small for this job",
                "Use largest_size or fewer pictures; every way of saving memory was tried."),
    ProblemKind("host-oom", 422, "The host's memory is too small for this job",
                "Use largest_size or fewer pictures, or give the container more memory."),
    ProblemKind("out-of-memory", 500, "The device's memory is too small for this job",
                "Ask for a smaller picture or fewer pictures."),
    ProblemKind("bad-output", 500, "The model produced no usable picture",
                "Try another seed, scheduler or size; a damaged model does this at every size."),
    ProblemKind("decode-crash", 500, "The engine died while it decoded the picture",
                "Try a smaller size; GET /system shows the rungs that were tried."),
    ProblemKind("exit-corruption", 500, "The engine died in its own clean-up",
                "The work before it is safe; report it if jobs fail by it."),
    ProblemKind("miopen-no-algorithm", 500, "MIOpen has no algorithm for this size on this GPU",
                "Try another size, a multiple of 64; check that the ROCm release knows the GPU."),
    ProblemKind("miopen-find-stall", 500, "MIOpen searched for kernels longer than it may",
                "Run rockiln warmup with the model and this size once, then send it again."),
    ProblemKind("gpu-page-fault", 500, "The GPU read memory that is not there",
                "Check the kernel log, and that driver and ROCm release match."),
    ProblemKind("gpu-reset", 500, "The GPU was reset under the job",
                "Check the kernel log, the power supply and the temperature; send it again."),
    ProblemKind("hang", 500, "The engine stood still",
                "Try a smaller size; GET /system shows which clock ran out and the last faults."),
    ProblemKind("kernel-missing-for-arch", 500, "This ROCm release has no kernel for the GPU",
                "Use a release that names the GPU's gfx id; rockiln doctor tells which do."),
    ProblemKind("engine-error", 500, "The engine failed",
                "The detail has the cause; the worker's log has the rest."),
    ProblemKind("engine-died", 500, "The engine died on every attempt",
                "The worker's log has each death; a smaller picture may pass."),
    ProblemKind("storage-full", 503, "The disk was full when the picture was to be kept",
                "Free space on the data disk of the host.", retry_helps=True),
    ProblemKind("lease-expired", 503, "The worker was lost",
                "Send it again once GET /readyz says ready.", retry_helps=True),
    ProblemKind("boot-failure", 503, "The engine does not start",
                "GET /readyz says why.", retry_helps=True),
    ProblemKind("attempt-deadline", 504, "The job took longer than an attempt may",
                "Ask for fewer steps or a smaller picture."),
    ProblemKind("job-deadline", 504, "The job took longer than a job may, with all its attempts",
                "Ask for fewer steps or a smaller picture; the job has its attempts."),
)  # fmt: skip

KINDS: dict[str, ProblemKind] = {kind.slug: kind for kind in (*_CALLS, *_ENDS)}
# What a call that waited may be told of its job.
JOB_END_SLUGS = tuple(kind.slug for kind in _ENDS)

# What the framework raises by itself.
KIND_BY_STATUS: dict[int, ProblemKind] = {
    status: KINDS[slug]
    for status, slug in {
        400: "bad-request",
        404: "unknown-route",
        405: "method-not-allowed",
        406: "not-acceptable",
        408: "request-timeout",
        411: "length-required",
        413: "body-too-large",
        414: "address-too-long",
        415: "unsupported-media-type",
        416: "range-not-satisfiable",
        431: "headers-too-large",
        500: "internal-error",
    }.items()
}


def kind_of(error: RockilnError) -> ProblemKind:
    """The row of an error; a bug of ours for errors that no call should ever see."""
    if isinstance(error, ProblemError):
        return error.kind
    return KINDS.get(type(error).slug(), KINDS["internal-error"])


def kind_of_failure(state: str, code: str | None) -> ProblemKind:
    """The row of a job that ended without its pictures."""
    if state == "cancelled":
        return KINDS["job-cancelled"]
    if state == "quarantined":
        return KINDS["quarantined"]
    return KINDS.get((code or "").replace("_", "-"), KINDS["engine-error"])


def problem(kind: ProblemKind, detail: str, *, instance: str, **members: Any) -> Problem:
    """The document. ``members`` may bring ``errors``, another ``hint``, and members of its own."""
    hint = members.pop("hint", kind.hint)
    errors = members.pop("errors", None)
    return Problem(
        type=kind.type,
        title=kind.title,
        status=kind.status,
        detail=detail,
        instance=instance,
        code=kind.code,
        hint=hint,
        errors=None if errors is None else [FieldError(**error) for error in errors],
        **members,
    )


def problem_response(kind: ProblemKind, detail: str, **members: Any) -> Response:
    """The document as an answer, with its headers."""
    document = problem(kind, detail, instance=quote(request.path), **members)
    response = Response(
        document.model_dump_json(exclude_none=True), status=kind.status, mimetype=PROBLEM_TYPE
    )
    set_retry_headers(response, kind, members)
    return response


def set_retry_headers(response: Response, kind: ProblemKind, members: dict[str, Any]) -> None:
    """Whether and when to try again, and with what."""
    if kind.status == _UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = 'Bearer realm="rockiln", Basic realm="rockiln"'
    response.headers["x-should-retry"] = "true" if kind.retry_helps else "false"
    if "retry_after_seconds" in members:
        response.headers["Retry-After"] = str(members["retry_after_seconds"])
    elif kind.retry_helps:
        response.headers["Retry-After"] = "5"
