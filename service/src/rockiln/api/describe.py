"""What a view says of itself for the OpenAPI document; the document is built from nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel

View = TypeVar("View", bound=Callable[..., Any])
_ATTRIBUTE = "rockiln_operation"


@dataclass(frozen=True)
class Answered:
    """One answer: its content types, each with a model, or None for bytes and pages."""

    description: str
    content: Mapping[str, type[BaseModel] | None] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RequestHeader:
    """One header that a route reads. Without a pattern any value is taken."""

    description: str
    pattern: str | None = None


@dataclass(frozen=True)
class Operation:
    """One method of one route.

    Attributes:
        forms: the body may be multipart/form-data too.
        query: model of the query parameters.
        problems: slugs it can answer with; the ones every route can are added.
    """

    summary: str
    answers: dict[int, Answered]
    description: str = ""
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    forms: bool = False
    headers: dict[str, RequestHeader] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def describe(operation: Operation) -> Callable[[View], View]:
    """Attaches the operation to its view."""

    def attach(view: View) -> View:
        setattr(view, _ATTRIBUTE, operation)
        return view

    return attach


def operation_of(view: Callable[..., Any]) -> Operation | None:
    """What was attached, or None for pages and static files."""
    found = getattr(view, _ATTRIBUTE, None)
    return found if isinstance(found, Operation) else None
