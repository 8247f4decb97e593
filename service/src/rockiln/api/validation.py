"""From a parsed body to a request, or to a list of what is wrong with each field."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from rockiln.domain.errors import InvalidRequestError
from rockiln.domain.model import ModelProfile
from rockiln.domain.request import SIDE_GRID_PX, SIDE_MAX_PX, SIDE_MIN_PX, GenerationRequest

Model = TypeVar("Model", bound=BaseModel)
_SHOWN_CHARS = 64
# pydantic's error types in our words; its own serve for the rest.
_MESSAGES = {
    "missing": "it is missing",
    "bytes_type": "it is not base64",
    "too_long": "it has more than {max_items} entries",
    "int_type": "it is not a whole number",
    "int_parsing": "it is not a whole number",
    "int_from_float": "it is not a whole number",
    "float_type": "it is not a number",
    "float_parsing": "it is not a number",
    "finite_number": "it is not a finite number",
    "string_type": "it is not text",
    "string_unicode": "it is not Unicode text (a lone surrogate)",
    "string_too_short": "it is empty",
    "string_too_long": "it has more than {max_length} characters",
    "greater_than_equal": "it is less than {min}",
    "less_than_equal": "it is more than {max}",
    "multiple_of": "it is not a multiple of {multiple_of}",
    "literal_error": "it is none of the known ones",
    "string_pattern_mismatch": "it is not of the form {pattern}",
}


def validate(model: type[Model], content: Mapping[str, Any]) -> Model:
    """The content as ``model``.

    Raises:
        InvalidRequestError: every field that is wrong, with its limit and what to do.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        errors = [_field_error(model, dict(each)) for each in error.errors(include_url=False)]
    raise InvalidRequestError(_summary(errors), errors=errors)


def validate_generation(
    content: Mapping[str, Any], find_model: Callable[[str | None], ModelProfile | None]
) -> GenerationRequest:
    """A generation request. A side that is refused is told the limits of the model it is for."""
    try:
        return validate(GenerationRequest, content)
    except InvalidRequestError as error:
        name = content.get("model")
        profile = find_model(name) if name is None or isinstance(name, str) else None
        if profile is None:
            raise
        errors = [_with_model_limits(each, profile) for each in error.members["errors"]]
        raise InvalidRequestError(_summary(errors), errors=errors) from error


def _summary(errors: list[dict[str, Any]]) -> str:
    first = f"{errors[0]['field']}: {errors[0]['message']}"
    return first if len(errors) == 1 else f"{first} (and {len(errors) - 1} more)"


def _with_model_limits(error: dict[str, Any], profile: ModelProfile) -> dict[str, Any]:
    if error["field"] not in {"width", "height"} or "max" not in (error.get("limit") or {}):
        return error
    limit = {
        "min": max(SIDE_MIN_PX, profile.min_side_px),
        "max": min(SIDE_MAX_PX, profile.max_side_px),
        "multiple_of": SIDE_GRID_PX,
    }
    message = error["message"].replace(str(SIDE_MIN_PX), str(limit["min"]))
    message = message.replace(str(SIDE_MAX_PX), str(limit["max"]))
    return {**error, "message": message, "limit": limit, "hint": limit_hint(limit)}


def _field_error(model: type[BaseModel], error: dict[str, Any]) -> dict[str, Any]:
    field = ".".join(_shown(str(part)) for part in error["loc"]) or "body"
    kind = error["type"]
    if kind == "extra_forbidden":
        return _unknown_field(_schema_at(model, error["loc"][:-1]), field)
    if kind == "string_pattern_mismatch" and field == "prompt":
        return {"field": field, "message": "it is blank", "hint": "say what to draw"}
    limit = _limit(_schema_at(model, error["loc"]))
    message = str(error["msg"]).replace("Input should", "it should")
    if kind in _MESSAGES:
        message = _MESSAGES[kind].format(**limit)
    return {
        "field": field,
        "message": message,
        "limit": limit or None,
        "hint": limit_hint(limit) or (f"give {field}" if kind == "missing" else None),
    }


def _unknown_field(schema: dict[str, Any], field: str) -> dict[str, Any]:
    known = list(schema.get("properties", ()))
    near = difflib.get_close_matches(field.rpartition(".")[2], known, n=1)
    return {
        "field": field,
        "message": "there is no such field",
        "limit": {"one_of": known},
        "hint": f"did you mean {near[0]}?" if near else "leave it out",
    }


def _schema_at(model: type[BaseModel], place: Sequence[str | int]) -> dict[str, Any]:
    """Of a field, or a field's field, in the JSON schema that clients are shown."""
    document = model.model_json_schema()
    schema: dict[str, Any] = document
    for part in place:
        inner = schema.get("items", {})
        schema = inner if isinstance(part, int) else schema.get("properties", {}).get(part, {})
        kinds = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
        schema = kinds[0] if kinds else {}
        if "$ref" in schema:
            schema = document["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


def _limit(schema: dict[str, Any]) -> dict[str, Any]:
    """What a field may be."""
    names = {
        "minimum": "min",
        "maximum": "max",
        "multipleOf": "multiple_of",
        "minLength": "min_length",
        "maxLength": "max_length",
        "enum": "one_of",
        "pattern": "pattern",
        "maxItems": "max_items",
    }
    return {ours: schema[theirs] for theirs, ours in names.items() if theirs in schema}


def limit_hint(limit: Mapping[str, Any]) -> str | None:
    """The limit as advice."""
    if "one_of" in limit:
        return "use one of " + ", ".join(map(str, limit["one_of"]))
    if "max" in limit:
        advice = f"use {limit['min']} to {limit['max']}"
        return advice + (
            f", a multiple of {limit['multiple_of']}" if "multiple_of" in limit else ""
        )
    if "max_length" in limit:
        return f"use {limit.get('min_length', 0)} to {limit['max_length']} characters"
    if "pattern" in limit:
        return "use small letters, digits, dots, dashes and underscores"
    return None


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"
