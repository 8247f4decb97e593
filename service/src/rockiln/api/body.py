"""JSON bodies, read strictly: what two parsers could read differently is refused."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from flask import current_app, request
from werkzeug.exceptions import RequestEntityTooLarge

from rockiln.api.problems import ProblemError

# Longer than any number a field takes; far below what makes Python's conversion slow.
_NUMBER_MAX_CHARS = 64


def read_json_object() -> dict[str, Any]:
    """The body of the request at hand.

    Raises:
        ProblemError: another content type, not UTF-8, not JSON, or not an object.
    """
    if not request.is_json:
        given = request.content_type
        raise ProblemError(
            "unsupported-media-type",
            f"the body is {given[:100]!r}" if given else "the body has no Content-Type",
            accepted=["application/json"],
        )
    try:
        content = parse_json(_read_body())
    except ValueError as error:
        raise ProblemError("invalid-json", str(error)) from error
    if not isinstance(content, dict):
        raise ProblemError("invalid-json", "the body is not a JSON object")
    return content


def _read_body() -> bytes:
    """All of the body. A server that ends its stream itself leaves these checks to the app.

    Raises:
        RequestEntityTooLarge: also for a chunked body, which would be cut off at the limit.
        ProblemError: the connection ended before the body did.
    """
    limit_bytes = current_app.config["MAX_CONTENT_LENGTH"]
    request.max_content_length = limit_bytes + 1
    data = request.get_data(cache=False)
    if len(data) > limit_bytes:
        raise RequestEntityTooLarge
    if request.content_length is not None and len(data) < request.content_length:
        raise ProblemError("bad-request", "the body is shorter than its Content-Length")
    if not data:
        raise ProblemError("invalid-json", "the body is empty")
    return data


def parse_json(data: bytes) -> Any:
    """JSON without NaN, Infinity, repeated names, endless numbers or NUL characters.

    Raises:
        ValueError: the reason, for the person who sent it.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from error
    try:
        return json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_int=_parse_int,
            parse_float=_parse_float,
            object_pairs_hook=_parse_object,
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _parse_int(digits: str) -> int:
    if len(digits) > _NUMBER_MAX_CHARS:
        raise ValueError(f"a number has more than {_NUMBER_MAX_CHARS} characters")
    return int(digits)


def _parse_float(digits: str) -> float:
    number = float(digits) if len(digits) <= _NUMBER_MAX_CHARS else math.inf
    if not math.isfinite(number):
        raise ValueError("a number is too large or has too many characters")
    return number


def _parse_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"the name {name[:64]!r} comes more than once")
        if "\0" in name or (isinstance(value, str) and "\0" in value):
            raise ValueError("the character U+0000 is not text")
        content[name] = value
    return content
