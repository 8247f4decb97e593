"""The API's own pages: the OpenAPI document, the same for people, and a page per problem."""

from __future__ import annotations

import json

from flask import Blueprint, Response, current_app, render_template

from rockiln.api.describe import Answered, Operation, describe
from rockiln.api.openapi import build_document
from rockiln.api.problems import KINDS, ProblemError

blueprint = Blueprint("docs", __name__)

_PAGE = {"text/html": None}


@blueprint.get("/openapi.json")
@describe(
    Operation(
        summary="This API as an OpenAPI 3.1 document",
        answers={200: Answered("The document.", {"application/json": None})},
    )
)
def openapi() -> Response:
    return Response(json.dumps(build_document(current_app)), mimetype="application/json")


@blueprint.get("/docs")
@describe(
    Operation(
        summary="This API as a page",
        answers={200: Answered("The page.", _PAGE)},
    )
)
def docs() -> str:
    return render_template("docs.html", document=build_document(current_app), kinds=KINDS.values())


@blueprint.get("/problems/<slug>")
@describe(
    Operation(
        summary="What a kind of problem means and what to do about it",
        answers={200: Answered("The page.", _PAGE)},
        problems=("unknown-problem",),
    )
)
def problem_page(slug: str) -> str:
    if slug not in KINDS:
        raise ProblemError("unknown-problem", f"there is no problem {slug[:64]!r}")
    return render_template("problem.html", kind=KINDS[slug])
