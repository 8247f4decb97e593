"""An error in the form of the dialect it is told in; one table of causes serves all of them."""

from __future__ import annotations

from typing import Any

from flask import Response, request
from pydantic import BaseModel, ConfigDict, Field

from rockiln.api.problems import ProblemKind, problem_response, set_retry_headers

OPENAI_PREFIX = "/v1/"
A1111_PREFIX = "/sdapi/"

_HTTP_UNAUTHORIZED, _HTTP_FORBIDDEN, _HTTP_TOO_MANY, _HTTP_SERVER = 401, 403, 429, 500
_HTTP_UNPROCESSABLE = 422
_OPENAI_TYPES = {
    _HTTP_UNAUTHORIZED: "authentication_error",
    _HTTP_FORBIDDEN: "permission_error",
    _HTTP_TOO_MANY: "rate_limit_error",
}
_OPENAI_CODES = {
    "invalid-request": "invalid_value",
    "unknown-model": "model_not_found",
    "too-large-for-device": "resolution_exceeds_memory",
    "missing-key": "invalid_api_key",
}


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True)


class OpenAIError(_Form):
    """What is inside the envelope."""

    model_config = ConfigDict(frozen=True, extra="allow")

    message: str
    type: str
    param: str | None
    code: str
    hint: str = Field(description="What to do about it.")


class OpenAIErrors(_Form):
    """OpenAI's error envelope, with our hint."""

    error: OpenAIError


class A1111Errors(_Form):
    """A1111's form of an error."""

    error: str = Field(description="Our code for it.")
    detail: Any
    body: str
    errors: str = Field(description="What is wrong and what to do about it, as one text.")


def openai_error(kind: ProblemKind, detail: str, members: dict[str, Any]) -> OpenAIErrors:
    """The envelope."""
    more = dict(members)
    errors = more.pop("errors", None) or []
    hint = more.pop("hint", None) or kind.hint
    code = _OPENAI_CODES.get(kind.slug, kind.code)
    server = "server_error" if kind.status >= _HTTP_SERVER else "invalid_request_error"
    error_type = _OPENAI_TYPES.get(kind.status, server)
    return OpenAIErrors(
        error=OpenAIError(
            message=f"{detail}. {hint}",
            type=error_type,
            param=errors[0]["field"] if errors else None,
            code=code,
            hint=hint,
            **({"errors": errors} if errors else {}),
            **more,
        )
    )


def a1111_error(kind: ProblemKind, detail: str, members: dict[str, Any]) -> A1111Errors:
    """The form of A1111's own handler."""
    errors = members.get("errors") or []
    fields = [
        {"loc": ["body", each["field"]], "msg": each["message"], "type": "value_error"}
        for each in errors
    ]
    return A1111Errors(
        error=kind.code,
        detail=fields or detail,
        body="",
        errors=f"{detail}. {members.get('hint') or kind.hint}",
    )


def error_response(kind: ProblemKind, detail: str, **members: Any) -> Response:
    """The error in the form of the route that was called."""
    document: BaseModel
    if request.path.startswith(OPENAI_PREFIX):
        document = openai_error(kind, detail, members)
    elif request.path.startswith(A1111_PREFIX):
        document = a1111_error(kind, detail, members)
    else:
        return problem_response(kind, detail, **members)
    response = Response(
        document.model_dump_json(),
        status=status_in(request.path, kind),
        mimetype="application/json",
    )
    set_retry_headers(response, kind, members)
    return response


def status_in(path: str, kind: ProblemKind) -> int:
    """A1111 has its own for a field that is wrong."""
    if kind.slug == "invalid-request" and path.startswith(A1111_PREFIX):
        return _HTTP_UNPROCESSABLE
    return kind.status


def error_model(path: str) -> tuple[str, type[BaseModel]] | None:
    """Content type and model of a dialect's errors; None where they are problem documents."""
    if path.startswith(OPENAI_PREFIX):
        return "application/json", OpenAIErrors
    if path.startswith(A1111_PREFIX):
        return "application/json", A1111Errors
    return None
