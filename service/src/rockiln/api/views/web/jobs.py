"""One job: its page, the part of it that is live, and what can be done with it."""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import Any

from flask import make_response, render_template, request
from werkzeug.wrappers import Response

from rockiln.api.problems import kind_of_failure
from rockiln.api.repeats import repeat_job
from rockiln.api.services import services
from rockiln.api.views.jobs import described, find_job
from rockiln.api.views.web.pages import (
    blueprint,
    by_htmx,
    gallery_query,
    go_to,
    read_form,
    state_of_service,
)
from rockiln.domain.errors import JobNotCancellableError
from rockiln.domain.request import SEED_MAX
from rockiln.store.records import Job

# How often a page looks again, in seconds: less often the longer the job takes.
_LOOK_SECONDS, _LOOK_SECONDS_MAX, _LOOKS_PER_AGE = 1, 15, 120


@blueprint.get("/ui/jobs/<job_id>")
def job_page(job_id: str) -> str:
    job = find_job(job_id)
    renew = "renew" in request.args and not job.ended
    return render_template("job.html", on_page=True, renew=renew, **live_context(job))


@blueprint.get("/ui/jobs/<job_id>/live")
def job_live(job_id: str) -> str:
    """The live part alone, for a page that looks again."""
    on_page = "page" in request.args
    return render_template("_live.html", on_page=on_page, **live_context(find_job(job_id)))


@blueprint.post("/ui/jobs/<job_id>/cancel")
def cancel_from_page(job_id: str) -> Response:
    read_form()
    with suppress(JobNotCancellableError):  # it ended meanwhile; the page tells how
        services().store.cancel(find_job(job_id).id)
    if by_htmx() and "queue" not in request.args:
        return make_response(job_live(job_id))
    if "queue" in request.args:
        return go_to("web.queue_page")
    return go_to("web.job_page", job_id=job_id)


@blueprint.post("/ui/jobs/<job_id>/delete")
def delete_from_page(job_id: str) -> Response:
    """For good, and back to the gallery, where the query says to which page of it."""
    read_form()
    services().store.purge(find_job(job_id).id)
    shown = gallery_query()
    return go_to("web.gallery_page", q=shown.q or None, before=shown.before)


@blueprint.post("/ui/jobs/<job_id>/repeat")
def repeat(job_id: str) -> Response:
    """The same again, or, with ``vary``, the same with another seed."""
    read_form()
    seed = secrets.randbelow(SEED_MAX + 1) if "vary" in request.args else None
    made = repeat_job(find_job(job_id), seed=seed)
    return go_to("web.job_page", job_id=made.id)


def live_context(job: Job) -> dict[str, Any]:
    """What the live part is drawn from."""
    now = services().clock()
    failed = job.ended and job.failure_code is not None
    return {
        "job": described(job),
        "ended": job.ended,
        "kind": kind_of_failure(job.state, job.failure_code) if failed else None,
        "eta_seconds": _eta_seconds(job, now),
        "look_seconds": _look_seconds(job, now),
        **({} if job.ended else state_of_service()),
    }


def _eta_seconds(job: Job, now: float) -> float | None:
    """Time to the end of a running job: by its own pace, or as estimated before its first step."""
    if job.ended or job.started_at is None:
        return None
    spent = max(0.0, now - job.started_at)
    total = job.parameters.total_steps * len(job.pictures)
    done = sum(picture.step for picture in job.pictures)
    if done:
        return spent / done * max(0, total - done)
    left = job.estimated_seconds - spent
    return left if left > 0 else None


def _look_seconds(job: Job, now: float) -> int:
    age = max(0.0, now - job.accepted_at)
    return min(_LOOK_SECONDS_MAX, _LOOK_SECONDS + int(age // _LOOKS_PER_AGE))
