"""The pages below ``/ui/``: plain forms and pages that work without JavaScript."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from rockiln.api.admission import accept_job, read_request
from rockiln.api.documents import job_document
from rockiln.api.problems import ProblemError, kind_of, kind_of_failure
from rockiln.api.readiness import checks
from rockiln.api.services import services
from rockiln.api.views.jobs import cancel, described, find_job
from rockiln.domain.errors import InvalidRequestError, JobNotCancellableError, RockilnError
from rockiln.domain.request import (
    GUIDANCE_MAX,
    NUM_IMAGES_MAX,
    PROMPT_MAX_CHARS,
    SEED_MAX,
    SIDE_GRID_PX,
    STEPS_MAX,
)
from rockiln.domain.sampling import SCHEDULER_NAMES

blueprint = Blueprint("web", __name__)

_RECENT_JOBS = 12
_TEXT_FIELDS = ("prompt", "negative_prompt", "model", "scheduler")
_WHOLE_FIELDS = ("width", "height", "num_inference_steps", "seed", "num_images")
_DECIMAL_FIELDS = ("guidance_scale",)
_LIMITS = {
    "prompt_characters": PROMPT_MAX_CHARS,
    "steps": STEPS_MAX,
    "guidance_scale": GUIDANCE_MAX,
    "seed": SEED_MAX,
    "num_images": NUM_IMAGES_MAX,
    "grid_px": SIDE_GRID_PX,
    "schedulers": SCHEDULER_NAMES,
}


@blueprint.get("/")
def root() -> AnyResponse:
    return redirect(url_for("web.home"))


@blueprint.get("/ui/")
def home() -> str:
    typed: dict[str, str] = {}
    if "again" in request.args:
        parameters = find_job(request.args["again"]).parameters.as_dict()
        typed = {name: str(value) for name, value in parameters.items()}
    return _home(typed)


@blueprint.post("/ui/generate")
def submit() -> AnyResponse | tuple[str, int]:
    _require_form()
    typed = {name: request.form.get(name, "") for name in request.form}
    try:
        wanted = read_request(services(), form_content(typed))
        job = accept_job(
            services(),
            wanted,
            picture_format=wanted.format or "png",
            idempotency_key=None,
        )
    except InvalidRequestError as error:
        errors = {each["field"]: each for each in error.members["errors"]}
        return _home(typed, errors=errors), kind_of(error).status
    except RockilnError as error:
        kind = kind_of(error)
        hint = error.members.get("hint", kind.hint)
        trouble = {"title": kind.title, "detail": error.detail, "hint": hint}
        return _home(typed, trouble=trouble), kind.status
    return redirect(url_for("web.job_page", job_id=job.id), code=303)


@blueprint.get("/ui/jobs/<job_id>")
def job_page(job_id: str) -> str:
    job = find_job(job_id)
    failed = job.ended and job.failure_code is not None
    return render_template(
        "job.html",
        job=described(job),
        ended=job.ended,
        kind=kind_of_failure(job.state, job.failure_code) if failed else None,
        queue=services().store.jobs.queue(),
        checks=_checks(),
    )


@blueprint.post("/ui/jobs/<job_id>/cancel")
def cancel_from_page(job_id: str) -> AnyResponse:
    _require_form()
    with suppress(JobNotCancellableError):  # it ended meanwhile; the page tells how
        cancel(find_job(job_id))
    return redirect(url_for("web.job_page", job_id=job_id), code=303)


def form_content(typed: dict[str, str]) -> dict[str, Any]:
    """Form fields as the JSON body they stand for. What is empty is left out.

    Text that is no number stays text, so that validation names the field.
    """
    content: dict[str, Any] = {}
    for name in _TEXT_FIELDS:
        if typed.get(name, "").strip() or name == "prompt":
            content[name] = typed.get(name, "").replace("\r\n", "\n")
    for names, convert in ((_WHOLE_FIELDS, int), (_DECIMAL_FIELDS, float)):
        for name in names:
            text = typed.get(name, "").strip()
            if text:
                content[name] = _number(text, convert)
    return content


def _number(text: str, convert: type[int] | type[float]) -> int | float | str:
    try:
        return convert(text)
    except ValueError:  # also Python's own limit on digits
        return text


def _require_form() -> None:
    if request.mimetype != "multipart/form-data":
        raise ProblemError(
            "unsupported-media-type",
            "the form was not sent as multipart/form-data",
            hint="Send the form on /ui/, or JSON to POST /generate.",
        )


def _home(
    typed: dict[str, str],
    *,
    errors: dict[str, Any] | None = None,
    trouble: dict[str, str] | None = None,
) -> str:
    held = services()
    catalogue = held.catalogue
    return render_template(
        "home.html",
        typed=typed,
        errors=errors or {},
        trouble=trouble,
        limits=_LIMITS,
        models=[profile for _, profile in sorted(catalogue.models.items())],
        default_model=catalogue.default(held.settings.default_model),
        broken_models=sorted(catalogue.broken.items()),
        jobs=[job_document(job) for job in held.store.jobs.page(limit=_RECENT_JOBS)],
        queue=held.store.jobs.queue(),
        workers=held.store.workers.all(),
        checks=_checks(),
    )


def _checks() -> list[Any]:
    held = services()
    return checks(held.settings, held.store, now=held.clock())
