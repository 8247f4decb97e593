"""Is the process alive, and could a picture be made."""

from __future__ import annotations

from flask import Blueprint, Response
from pydantic import BaseModel

from rockiln.api.describe import Answered, Operation, describe
from rockiln.api.json_answers import answer
from rockiln.api.problems import KINDS, problem_response
from rockiln.api.readiness import checks
from rockiln.api.services import services

blueprint = Blueprint("health", __name__)


class Liveness(BaseModel):
    """The api process answers."""

    alive: bool = True


class CheckDocument(BaseModel):
    """One thing that must hold."""

    name: str
    ok: bool
    detail: str


class Readiness(BaseModel):
    """Everything holds."""

    ready: bool = True
    checks: list[CheckDocument]


@blueprint.get("/livez")
@describe(
    Operation(
        summary="Whether the api process answers",
        description="Touches neither store nor worker.",
        answers={200: Answered("It does.", {"application/json": Liveness})},
    )
)
def livez() -> Response:
    return answer(Liveness())


@blueprint.get("/readyz")
@describe(
    Operation(
        summary="Whether a picture could be made now",
        description="Judged from records: disk, store, and a worker that is alive and has proven "
        "itself. Runs no work. When not ready, checks says what is missing.",
        answers={200: Answered("Ready.", {"application/json": Readiness})},
        problems=("not-ready", "store-unavailable"),
    )
)
def readyz() -> Response:
    held = services()
    results = checks(held.settings, held.store, now=held.clock())
    documents = [CheckDocument(name=each.name, ok=each.ok, detail=each.detail) for each in results]
    missing = [f"{each.name}: {each.detail}" for each in results if not each.ok]
    if missing:
        return problem_response(
            KINDS["not-ready"],
            "; ".join(missing),
            checks=[document.model_dump() for document in documents],
        )
    return answer(Readiness(checks=documents))
