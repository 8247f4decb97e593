"""The queue: what runs, what waits and at which place, and what failed lately."""

from __future__ import annotations

from typing import Any

from flask import render_template

from rockiln.api.access import owner_of_request
from rockiln.api.documents import JobDocument
from rockiln.api.problems import ProblemKind, kind_of_failure
from rockiln.api.services import services
from rockiln.api.views.jobs import described
from rockiln.api.views.web.pages import blueprint, state_of_service
from rockiln.domain.job import RUNNING_STATES, WAITING_STATES, JobState
from rockiln.store.records import Job

_WAITING_SHOWN = 50
_ENDED_SHOWN = 12


@blueprint.get("/ui/queue")
def queue_page() -> str:
    return render_template("queue.html", **_context())


@blueprint.get("/ui/queue/live")
def queue_live() -> str:
    return render_template("_queue.html", **_context())


def _context() -> dict[str, Any]:
    jobs, owner = services().store.jobs, owner_of_request() or None

    def of(states: tuple[JobState, ...], limit: int) -> list[Job]:
        return jobs.page(limit=limit, states=states, owner=owner)

    failed = of((JobState.FAILED, JobState.QUARANTINED, JobState.CANCELLED), _ENDED_SHOWN)
    waiting = [described(job) for job in of(tuple(WAITING_STATES), _WAITING_SHOWN)]
    return {
        "running": [described(job) for job in of(tuple(RUNNING_STATES), _WAITING_SHOWN)],
        "waiting": sorted(waiting, key=_position),
        "ended": [(described(job), _kind(job)) for job in failed],
        **state_of_service(),
    }


def _position(job: JobDocument) -> int:
    return job.queue.position if job.queue else 0


def _kind(job: Job) -> ProblemKind | None:
    if job.state is JobState.CANCELLED:
        return None
    return kind_of_failure(job.state, job.failure_code)
