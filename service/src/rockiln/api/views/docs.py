"""The API's own pages: the OpenAPI document, the same for people, and a page per problem."""

from __future__ import annotations

import json
from typing import Any

from flask import Blueprint, Response, render_template

from rockiln.api.describe import Answered, Operation, describe
from rockiln.api.problems import KINDS, ProblemError
from rockiln.api.services import services

blueprint = Blueprint("docs", __name__)

_PAGE = {"text/html": None}


@blueprint.app_template_filter()
def schema_words(schema: dict[str, Any]) -> str:
    """A JSON schema in a few words; a reference as its name alone."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return ", or ".join(schema_words(each) for each in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    kind = str(schema.get("type", "anything"))
    if kind == "array":
        return f"list of {schema_words(schema.get('items', {}))}"
    said = [schema.get("format", kind)]
    if "maximum" in schema:
        said.append(f"{schema['minimum']} to {schema['maximum']}")
    if "multipleOf" in schema:
        said.append(f"a multiple of {schema['multipleOf']}")
    if "maxLength" in schema:
        said.append(f"{schema.get('minLength', 0)} to {schema['maxLength']} characters")
    return ", ".join(said)


@blueprint.get("/openapi.json")
@describe(
    Operation(
        summary="This API as an OpenAPI 3.1 document",
        answers={200: Answered("The document.", {"application/json": None})},
    )
)
def openapi() -> Response:
    return Response(json.dumps(services().document()), mimetype="application/json")


@blueprint.get("/docs")
@describe(
    Operation(
        summary="This API as a page",
        answers={200: Answered("The page.", _PAGE)},
    )
)
def docs() -> str:
    return render_template("docs.html", document=services().document(), kinds=KINDS.values())


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
