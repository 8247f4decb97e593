"""All pictures, found by the words of their request; and settings taken from a file."""

from __future__ import annotations

from typing import Any

from flask import make_response, render_template
from werkzeug.wrappers import Response

from rockiln.api.access import owner_of_request
from rockiln.api.body import body_turn
from rockiln.api.documents import job_document
from rockiln.api.picture_settings import PictureSettings, read_settings
from rockiln.api.services import services
from rockiln.api.views.web.form import typed_of
from rockiln.api.views.web.generate import generate_page
from rockiln.api.views.web.pages import GalleryQuery, blueprint, gallery_query, read_form
from rockiln.domain.errors import InvalidRequestError
from rockiln.domain.job import JobState

_SHOWN = 24


@blueprint.get("/ui/gallery")
def gallery_page() -> str:
    return render_template("gallery.html", **_context(gallery_query()))


@blueprint.post("/ui/restore")
def restore() -> Response:
    """The form with the settings that a picture file brings with it."""
    try:
        with body_turn():
            settings = read_settings(_chosen_file())
    except InvalidRequestError as error:
        told = error.members["errors"][0]
        page = render_template("gallery.html", file_error=told, **_context(GalleryQuery()))
        return make_response(page, 400)
    return make_response(generate_page(typed_of(_usable(settings)), restored=settings))


def _chosen_file() -> bytes:
    file = read_form((), {"file"}).get("file")
    if isinstance(file, bytes) and file:
        return file
    message = "no file was chosen"
    raise InvalidRequestError(
        f"file: {message}", errors=[{"field": "file", "message": message, "hint": None}]
    )


def _usable(settings: PictureSettings) -> dict[str, Any]:
    """What of the settings this host knows; a model that it has not is told, and left out."""
    fields = dict(settings.fields)
    model = fields.get("model")
    if model is not None and model not in services().catalogue.models:
        settings.notes.append(f"Its model {model} is not on this host; the chosen one is used.")
        del fields["model"]
    return fields


def _context(query: GalleryQuery) -> dict[str, Any]:
    jobs = services().store.jobs.page(
        limit=_SHOWN + 1,
        before_seq=query.before,
        states=(JobState.DONE,),
        owner=owner_of_request() or None,
        purpose="picture",
        search=query.q.replace("\0", ""),
    )
    shown = jobs[:_SHOWN]
    return {
        "query": query,
        "jobs": [job_document(job) for job in shown],
        "next_before": shown[-1].seq if len(jobs) > _SHOWN else None,
    }
