"""All errors end here; no view formats one."""

from __future__ import annotations

import difflib
import uuid
from typing import Any

import structlog
from flask import Flask, Response, current_app, render_template, request
from sqlalchemy.exc import OperationalError
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, RequestEntityTooLarge

from rockiln.api.error_forms import error_response
from rockiln.api.problems import (
    KIND_BY_STATUS,
    KINDS,
    ProblemKind,
    kind_of,
    problem,
    set_retry_headers,
)
from rockiln.domain.errors import RockilnError

log = structlog.get_logger("rockiln.api")


def init_error_handlers(app: Flask) -> None:
    """Four handlers: our conditions, the framework's, the database's, and everything else."""
    app.register_error_handler(RockilnError, _ours)
    app.register_error_handler(HTTPException, _frameworks)
    app.register_error_handler(OperationalError, _databases)
    app.register_error_handler(Exception, _unexpected)


def _ours(error: RockilnError) -> Response:
    kind = kind_of(error)
    if kind is KINDS["internal-error"]:
        return _unexpected(error)
    return _respond(kind, error.detail, **error.members)


def _frameworks(error: HTTPException) -> Response:
    if error.code is None or error.code < 400:  # noqa: PLR2004 (a redirect is no error)
        response = error.get_response()
        return Response(response.data, status=response.status_code, headers=response.headers)
    kind = KIND_BY_STATUS.get(error.code)
    if kind is None:
        kind = KINDS["bad-request"] if error.code < 500 else KINDS["internal-error"]  # noqa: PLR2004
    if isinstance(error, NotFound):
        return _respond(kind, f"there is no route {request.path[:200]!r}", **_nearest())
    if isinstance(error, RequestEntityTooLarge):
        limit = {"max_bytes": current_app.config["MAX_CONTENT_LENGTH"]}
        return _respond(kind, f"the limit is {limit['max_bytes']} bytes", limit=limit)
    response = _respond(kind, error.description or error.name)
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return response


def _databases(error: OperationalError) -> Response:
    log.error("store.failed", reason=str(error.orig))
    return _respond(KINDS["store-unavailable"], "the job store cannot be used just now")


def _unexpected(error: Exception) -> Response:
    request_id = uuid.uuid4().hex
    log.error("request.failed", request_id=request_id, exc_info=error)
    return _respond(KINDS["internal-error"], "an error that nobody expected", request_id=request_id)


def _respond(kind: ProblemKind, detail: str, **members: Any) -> Response:
    """The problem in the form of the dialect, or as a page to a person on the pages."""
    if not request.path.startswith("/ui/"):
        return error_response(kind, detail, **members)
    page = render_template(
        "error.html", problem=problem(kind, detail, instance=request.path, **members)
    )
    response = Response(page, status=kind.status, mimetype="text/html")
    set_retry_headers(response, kind, members)
    if kind is KINDS["missing-key"]:  # with Basic the browser would ask by itself, and keep the key
        response.headers["WWW-Authenticate"] = 'Bearer realm="rockiln"'
    return response


def _nearest() -> dict[str, str]:
    """The route that was probably meant."""
    routes = sorted({rule.rule for rule in current_app.url_map.iter_rules()})
    near = difflib.get_close_matches(request.path[:200], routes, n=1)
    return {"hint": f"did you mean {near[0]}? GET /docs lists every route."} if near else {}
