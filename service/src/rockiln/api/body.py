"""JSON bodies and forms, read strictly: what two parsers could read differently is refused."""

from __future__ import annotations

import io
import json
import math
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from flask import current_app, request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from rockiln.api.problems import ProblemError
from rockiln.domain.errors import InvalidRequestError, QueueFullError

# Longer than any number a field takes; far below what makes Python's conversion slow.
_NUMBER_MAX_CHARS = 64
_FORM_PARTS_MAX = 100
# A body with pictures is in memory several times over while it is read; so many at once fit into
# the api's container.
_SMALL_BODY_BYTES = 1 << 20
_LARGE_BODIES = threading.BoundedSemaphore(4)
_TURN_SECONDS = 20.0


@contextmanager
def body_turn() -> Iterator[None]:
    """To be held while a body that may bring pictures is read and taken in; small ones are free.

    Raises:
        QueueFullError: as many large bodies as may are being read.
    """
    length = request.content_length
    if length is not None and length <= _SMALL_BODY_BYTES:
        yield
        return
    if not _LARGE_BODIES.acquire(timeout=_TURN_SECONDS):
        raise QueueFullError(
            "as many large bodies as may are being read", reason="uploads", retry_after_seconds=5
        )
    try:
        yield
    finally:
        _LARGE_BODIES.release()


def read_object(text_fields: Collection[str], file_fields: Collection[str]) -> dict[str, Any]:
    """The body of the request at hand, as JSON or as a form.

    In a form each value is JSON, but for ``text_fields``, which are taken as they are, and
    ``file_fields``, which may be files. A value that is no JSON stays text, for validation to name.

    Raises:
        ProblemError: as ``read_json_object``.
        InvalidRequestError: a field comes twice, or is no file.
    """
    if request.mimetype != "multipart/form-data":
        return read_json_object(accepted=["application/json", "multipart/form-data"])
    data = _read_body()
    # Not the request's own: that would keep every file for as long as the call waits.
    parser = FormDataParser(lambda *_, **__: io.BytesIO(), max_form_parts=_FORM_PARTS_MAX)
    _, form, uploads = parser.parse(
        io.BytesIO(data), request.mimetype, len(data), request.mimetype_params
    )
    content: dict[str, Any] = {}
    for name, texts in form.lists():
        text = texts[0]
        if len(texts) > 1 or name in uploads:
            _refuse_field(name, "it comes more than once")
        if "\0" in name or "\0" in text:
            _refuse_field(name, "the character U+0000 is not text")
        content[name] = text if name in {*text_fields, *file_fields} else _json_or_text(text)
    for name, files in uploads.lists():
        if name not in file_fields:
            _refuse_field(name, "it is no field for a file")
        if len(files) > 1:
            _refuse_field(name, "it comes more than once")
        content[name] = files[0].read()
    return content


def _refuse_field(name: str, message: str) -> NoReturn:
    shown = name[:64].replace("\0", "?")
    raise InvalidRequestError(
        f"{shown}: {message}", errors=[{"field": shown, "message": message, "hint": None}]
    )


def _json_or_text(text: str) -> Any:
    try:
        return parse_json(text.encode("utf-8"))
    except ValueError:
        return text


def read_json_object(accepted: Sequence[str] = ("application/json",)) -> dict[str, Any]:
    """The body of the request at hand.

    Raises:
        ProblemError: another content type, not UTF-8, not JSON, or not an object.
    """
    if not request.is_json:
        given = request.content_type
        raise ProblemError(
            "unsupported-media-type",
            f"the body is {given[:100]!r}" if given else "the body has no Content-Type",
            accepted=list(accepted),
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
