"""The pages below ``/ui/``: plain forms and pages that work without JavaScript."""

from __future__ import annotations

from flask import Blueprint, redirect, url_for
from werkzeug.wrappers import Response as AnyResponse

blueprint = Blueprint("web", __name__)


@blueprint.get("/")
def root() -> AnyResponse:
    return redirect(url_for("web.home"))


@blueprint.get("/ui/")
def home() -> str:
    return "rockiln"
