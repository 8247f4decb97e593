"""Answers with a document in them."""

from __future__ import annotations

from flask import Response
from pydantic import BaseModel


def answer(document: BaseModel, status: int = 200) -> Response:
    """A document as JSON."""
    return Response(document.model_dump_json(), status=status, mimetype="application/json")
