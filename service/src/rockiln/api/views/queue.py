"""The order of the jobs that wait."""

from __future__ import annotations

from flask import Blueprint, Response
from pydantic import BaseModel, ConfigDict, Field

from rockiln.api.body import read_json_object
from rockiln.api.describe import Answered, Operation, describe
from rockiln.api.documents import JobDocument
from rockiln.api.json_answers import answer
from rockiln.api.services import services
from rockiln.api.validation import validate
from rockiln.api.views.jobs import described, find_job
from rockiln.store.records import Move

blueprint = Blueprint("queue", __name__)


class MoveRequest(BaseModel):
    """Where a waiting job goes among the waiting jobs of its owner."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    to: Move = Field(description="Before all of them, or one place up or down.")


@blueprint.post("/jobs/<job_id>/move")
@describe(
    Operation(
        summary="Let a waiting job run earlier or later",
        description="Among the waiting jobs of its owner: other owners have their turns as before. "
        "At the end of the line it stays where it is.",
        body=MoveRequest,
        answers={200: Answered("The job with its new place.", {"application/json": JobDocument})},
        problems=(
            "invalid-request",
            "invalid-json",
            "unsupported-media-type",
            "body-too-large",
            "unknown-job",
            "job-not-waiting",
            "store-unavailable",
        ),
    )
)
def move_job(job_id: str) -> Response:
    wanted = validate(MoveRequest, read_json_object())
    return answer(described(services().store.jobs.move(find_job(job_id).id, wanted.to)))
