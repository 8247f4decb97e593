"""The queue: what runs, what waits in which order, and what failed lately."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from flask import make_response, render_template
from werkzeug.wrappers import Response

from rockiln.api.access import owner_to_see
from rockiln.api.problems import ProblemKind, kind_of_failure
from rockiln.api.services import services
from rockiln.api.views.jobs import described, find_job
from rockiln.api.views.web.pages import blueprint, by_htmx, go_to, read_form, state_of_service
from rockiln.domain.errors import JobNotWaitingError
from rockiln.domain.job import RUNNING_STATES, JobState
from rockiln.store.records import Job, Move

_WAITING_SHOWN = 50
_ENDED_SHOWN = 12


@blueprint.get("/ui/queue")
def queue_page() -> str:
    return render_template("queue.html", **_context())


@blueprint.get("/ui/queue/live")
def queue_live() -> str:
    return render_template("_queue.html", **_context())


@blueprint.post("/ui/jobs/<job_id>/move/<any(first, up, down):to>")
def move_from_page(job_id: str, to: Move) -> Response:
    read_form()
    with suppress(JobNotWaitingError):  # it began meanwhile; the page tells
        services().store.jobs.move(find_job(job_id).id, to)
    if not by_htmx():
        return go_to("web.queue_page")
    response = make_response(queue_live())
    response.headers["HX-Trigger"] = json.dumps({"said": _place(job_id)})
    return response


def _place(job_id: str) -> str:
    """For a screen reader."""
    place = services().store.jobs.place(job_id)
    return "It does not wait any more." if place is None else f"It is number {place.position} now."


def _context() -> dict[str, Any]:
    store, owner = services().store, owner_to_see()

    def of(states: tuple[JobState, ...], limit: int) -> list[Job]:
        return store.jobs.page(limit=limit, states=states, owner=owner)

    failed = of((JobState.FAILED, JobState.QUARANTINED, JobState.CANCELLED), _ENDED_SHOWN)
    waiting = store.jobs.waiting(limit=_WAITING_SHOWN, owner=owner)
    owners = [job.owner for job in waiting]
    names = {key.id: key.name for key in store.keys.all()} if len(set(owners)) > 1 else {}
    return {
        "running": [described(job) for job in of(tuple(RUNNING_STATES), _WAITING_SHOWN)],
        "waiting": [
            (
                described(job),
                {
                    "owner": names.get(job.owner),
                    "first": job.owner not in owners[:place],
                    "last": job.owner not in owners[place + 1 :],
                },
            )
            for place, job in enumerate(waiting)
        ],
        "ended": [(described(job), _kind(job)) for job in failed],
        **state_of_service(),
    }


def _kind(job: Job) -> ProblemKind | None:
    if job.state is JobState.CANCELLED:
        return None
    return kind_of_failure(job.state, job.failure_code)
