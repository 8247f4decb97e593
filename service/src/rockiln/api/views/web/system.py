"""How this installation stands, for a person, and the report for whoever helps."""

from __future__ import annotations

from flask import Response, render_template

from rockiln.api.services import services
from rockiln.api.views.system import SystemDocument, system_document
from rockiln.api.views.web.pages import blueprint, state_of_service


@blueprint.get("/ui/system")
def system_page() -> str:
    return render_template("system.html", system=_document(), **state_of_service())


@blueprint.get("/ui/system/report")
def report() -> Response:
    """All that is known, as a file without a prompt in it."""
    response = Response(_document().model_dump_json(indent=2), mimetype="application/json")
    response.headers["Content-Disposition"] = 'attachment; filename="rockiln-report.json"'
    return response


def _document() -> SystemDocument:
    held = services()
    return system_document(held.store, held.settings, now=held.clock())
