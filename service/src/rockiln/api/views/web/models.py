"""The models of this host and those it can get, with what each is good for."""

from __future__ import annotations

from typing import Any

from flask import Response as FlaskResponse
from flask import make_response, render_template
from werkzeug.wrappers import Response

from rockiln.api.model_states import model_documents
from rockiln.api.services import services
from rockiln.api.views.models import cancel_pull, pull, remove_model, verify_model
from rockiln.api.views.web.pages import (
    Trouble,
    as_trouble,
    blueprint,
    go_to,
    read_form,
)

_ACTS = {"cancel": cancel_pull, "verify": verify_model, "remove": remove_model}
_ABSENT = frozenset({"downloadable", "gated", "unsupported"})


@blueprint.get("/ui/models")
def models_page() -> str:
    return render_template("models.html", **_context())


@blueprint.get("/ui/models/live")
def models_live() -> str:
    return render_template("_models.html", **_context())


@blueprint.post("/ui/models/<model_id>/pull")
def pull_from_page(model_id: str) -> Response:
    accepted = read_form({"accept_licence"}).get("accept_licence") == "yes"
    return _done_by(lambda: pull(model_id, accept_licence=accepted))


@blueprint.post("/ui/models/<model_id>/<any(cancel, verify, remove):act>")
def act_on_model(model_id: str, act: str) -> Response:
    read_form()
    return _done_by(lambda: _ACTS[act](model_id))


def _done_by(act: Any) -> Response:
    """The page after it, or with what was refused."""
    try:
        with as_trouble():
            act()
    except Trouble as trouble:
        page: FlaskResponse = make_response(
            render_template("models.html", trouble=trouble.words, **_context()), trouble.status
        )
        return page
    return go_to("web.models_page")


def _context() -> dict[str, Any]:
    documents = model_documents(services())
    return {
        "here": [model for model in documents if model.state not in _ABSENT],
        "absent": [model for model in documents if model.state in _ABSENT],
        "busy": any(
            model.task is not None and model.task.state in {"asked", "running"}
            for model in documents
        ),
    }
