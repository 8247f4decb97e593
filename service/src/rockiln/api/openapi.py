"""The OpenAPI 3.1 document, from the routes, their descriptions and the pydantic models."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from flask import Flask
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from rockiln import __version__
from rockiln.api.describe import Answered, Operation, operation_of
from rockiln.api.documents import Problem
from rockiln.api.error_forms import error_model, status_in
from rockiln.api.problems import KINDS, PROBLEM_TYPE, ProblemKind
from rockiln.domain.request import MODEL_ID_PATTERN

_METHODS = ("GET", "POST", "DELETE", "PUT", "PATCH")
_PARAMETER = re.compile(r"<(?:(?P<converter>\w+)(?:\([^)]*\))?:)?(?P<name>\w+)>")
_PATH_SCHEMAS: dict[str, dict[str, Any]] = {
    "job_id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    "index": {"type": "integer", "minimum": 0},
    "slug": {"type": "string", "enum": sorted(KINDS)},
    "model_id": {"type": "string", "pattern": MODEL_ID_PATTERN},
}
# Any route: guards stand in front of all of them.
_EVERYWHERE = ("misdirected-request", "missing-key", "insufficient-scope", "internal-error")
_EVERY_CHANGE = ("cross-origin-request",)

_Key = tuple[type[BaseModel], JsonSchemaMode]
_References = Mapping[tuple[Any, JsonSchemaMode], dict[str, Any]]


def build_document(app: Flask) -> dict[str, Any]:
    """The document of every described route of ``app``."""
    operations = dict(_operations(app))
    models: set[_Key] = {(Problem, "serialization")}
    models |= {(form[1], "serialization") for path, _ in operations if (form := error_model(path))}
    for operation in operations.values():
        models.update(_models(operation))
    references, definitions = models_json_schema(
        sorted(models, key=lambda pair: pair[0].__name__),
        ref_template="#/components/schemas/{model}",
    )
    paths: dict[str, dict[str, Any]] = {}
    for (path, method), operation in operations.items():
        entry = paths.setdefault(path, {})
        entry[method.lower()] = _operation(path, method, operation, references)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "rockiln",
            "version": __version__,
            "summary": "Picture generation that does not lose work.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": definitions.get("$defs", {})},
    }


def _operations(app: Flask) -> Iterable[tuple[tuple[str, str], Operation]]:
    for rule in app.url_map.iter_rules():
        operation = operation_of(app.view_functions[rule.endpoint])
        if operation is None:
            continue
        for method in _METHODS:
            if method in (rule.methods or ()):
                yield (_PARAMETER.sub(r"{\g<name>}", rule.rule), method), operation


def _models(operation: Operation) -> Iterable[_Key]:
    for given in (operation.body, operation.query):
        if given is not None:
            yield given, "validation"
    for answer in operation.answers.values():
        for model in answer.content.values():
            if model is not None:
                yield model, "serialization"


def _operation(
    path: str, method: str, operation: Operation, references: _References
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "operationId": method.lower() + re.sub(r"\W+", "_", path).rstrip("_"),
        "summary": operation.summary,
        "parameters": _parameters(path, operation),
        "responses": _responses(path, method, operation, references),
    }
    if operation.description:
        result["description"] = operation.description
    if operation.body is not None:
        schema = references[operation.body, "validation"]
        kinds = ["application/json", *(["multipart/form-data"] if operation.forms else [])]
        result["requestBody"] = {
            "required": True,
            "content": {kind: {"schema": schema} for kind in kinds},
        }
    return result


def _parameters(path: str, operation: Operation) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": _PATH_SCHEMAS[name]}
        for name in re.findall(r"{(\w+)}", path)
    ]
    if operation.query is not None:
        for name, schema in operation.query.model_json_schema()["properties"].items():
            text = schema.pop("description", "")
            parameters.append({"name": name, "in": "query", "description": text, "schema": schema})
    for name, header in operation.headers.items():
        if name == "Accept":  # OpenAPI has it as the content types of the answers
            continue
        schema = {"type": "string"}
        if header.pattern is not None:
            schema["pattern"] = header.pattern
        parameters.append(
            {"name": name, "in": "header", "description": header.description, "schema": schema}
        )
    return parameters


def _responses(
    path: str, method: str, operation: Operation, references: _References
) -> dict[str, Any]:
    responses = {
        str(status): _answer(answer, references) for status, answer in operation.answers.items()
    }
    slugs = {*operation.problems, *_EVERYWHERE, *(_EVERY_CHANGE if method != "GET" else ())}
    by_status: dict[int, list[ProblemKind]] = {}
    for slug in sorted(slugs):
        by_status.setdefault(status_in(path, KINDS[slug]), []).append(KINDS[slug])
    media_type, model = error_model(path) or (PROBLEM_TYPE, Problem)
    schema = references[model, "serialization"]
    for status, kinds in sorted(by_status.items()):
        responses[str(status)] = {
            "description": "; ".join(f"{kind.title} ({kind.slug})" for kind in kinds),
            "content": {media_type: {"schema": schema}},
            "headers": {
                "x-should-retry": {
                    "description": "Whether the same call may succeed later.",
                    "schema": {"type": "string", "enum": ["true", "false"]},
                }
            },
        }
    return responses


def _answer(answer: Answered, references: _References) -> dict[str, Any]:
    result: dict[str, Any] = {"description": answer.description}
    if answer.content:
        result["content"] = {
            media_type: {} if model is None else {"schema": references[model, "serialization"]}
            for media_type, model in answer.content.items()
        }
    if answer.headers:
        result["headers"] = {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in answer.headers.items()
        }
    return result
