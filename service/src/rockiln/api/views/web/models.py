"""The models of this host, with what each is good for."""

from __future__ import annotations

from flask import render_template

from rockiln.api.views.models import list_models
from rockiln.api.views.web.pages import blueprint


@blueprint.get("/ui/models")
def models_page() -> str:
    documents = list_models().get_json()["models"]
    return render_template("models.html", models=documents)
