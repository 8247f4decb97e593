"""How this installation stands, for a person, and the report for whoever helps."""

from __future__ import annotations

from typing import Any

from flask import Response, render_template

from rockiln.api.services import Services, services
from rockiln.api.views.system import SystemDocument, system_document
from rockiln.api.views.web.pages import blueprint, state_of_service
from rockiln.domain.ladder import RungKey
from rockiln.registry.revision import signature_of


@blueprint.get("/ui/system")
def system_page() -> str:
    document = _document()
    kinds = _kinds_of_job(services(), document)
    return render_template("system.html", system=document, kinds=kinds, **state_of_service())


@blueprint.get("/ui/system/report")
def report() -> Response:
    """All that is known, as a file without a prompt in it."""
    response = Response(_document().model_dump_json(indent=2), mimetype="application/json")
    response.headers["Content-Disposition"] = 'attachment; filename="rockiln-report.json"'
    return response


def _document() -> SystemDocument:
    held = services()
    return system_document(held.store, held.settings, now=held.clock())


def _kinds_of_job(held: Services, document: SystemDocument) -> list[dict[str, Any]]:
    """What each remembered way of working is for, in words for a person."""
    titles = {signature_of(model): model.title for model in held.catalogue.models.values()}
    kinds: list[dict[str, Any]] = []
    for known in document.rungs:
        key = RungKey.of_text(known.key)
        if key is None:
            kinds.append({"model": known.key})
            continue
        release = " / ".join(part for part in key.release.split("/") if part)
        unknown = f"files {key.revision[:8]}, not here as they were"
        kinds.append(
            {
                "model": titles.get(key.revision, unknown),
                "size": key.size_bucket.replace("x", " × "),  # noqa: RUF001 (for people)
                "pictures": key.batch,
                "on": ", ".join(filter(None, (key.gpu, key.dtype, release))),
            }
        )
    return kinds
