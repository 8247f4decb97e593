"""What every page uses: the blueprint, and what is known of who asks."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from flask import Blueprint, make_response, redirect, request, url_for
from pydantic import BaseModel, ConfigDict, Field
from werkzeug.wrappers import Response

from rockiln.api.body import read_object
from rockiln.api.problems import ProblemError, kind_of
from rockiln.api.readiness import checks
from rockiln.api.services import services
from rockiln.api.sessions import FORM_TOKEN, check_form_token
from rockiln.api.validation import validate
from rockiln.domain.errors import RockilnError
from rockiln.registry.manifest import FAMILY_MANIFESTS

blueprint = Blueprint("web", __name__)

_CURSOR_MAX = 2**63 - 1
_CURSOR_DIGITS = 19


class GalleryQuery(BaseModel):
    """Parameters of the gallery."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    q: str = Field(default="", max_length=300)
    before: int | None = Field(default=None, ge=1, le=_CURSOR_MAX)


def gallery_query() -> GalleryQuery:
    """What of the gallery this request is about. Raises InvalidRequestError."""
    given: dict[str, Any] = {name: value for name, value in request.args.items() if value}
    before = given.get("before", "")
    if before.isdecimal() and len(before) <= _CURSOR_DIGITS:
        given["before"] = int(before)
    return validate(GalleryQuery, given)


@blueprint.after_request
def place_errors(response: Response) -> Response:
    """Where htmx asked for a part, an error's page takes the place of all; a look may fail."""
    if by_htmx() and response.status_code >= HTTPStatus.BAD_REQUEST:
        if request.method == "GET" and response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            response.headers["HX-Reswap"] = "none"
        elif "HX-Retarget" not in response.headers:
            response.headers["HX-Retarget"] = response.headers["HX-Reselect"] = "#main"
            response.headers["HX-Reswap"] = "outerHTML show:top"
    return response


@blueprint.app_template_filter()
def family_title(family: str) -> str:
    """A family as people name it."""
    return FAMILY_MANIFESTS[family].title


class Trouble(Exception):  # noqa: N818 (it is shown on a page, and is no fault of ours)
    """What a page says beside its form where the service refused."""

    def __init__(self, error: RockilnError) -> None:
        kind = kind_of(error)
        super().__init__(error.detail)
        self.status = kind.status
        self.words = {
            "title": kind.title,
            "detail": error.detail,
            "hint": error.members.get("hint") or kind.hint,
        }


@contextmanager
def as_trouble() -> Iterator[None]:
    """Refusals of the block as Trouble."""
    try:
        yield
    except RockilnError as error:
        raise Trouble(error) from error


def by_htmx() -> bool:
    """Whether htmx asks, and takes a fragment for an answer."""
    return request.headers.get("HX-Request") == "true"


def read_form(
    text_fields: Collection[str] = (), file_fields: Collection[str] = ()
) -> dict[str, Any]:
    """What a form was sent with, once it is known that this browser got it from here.

    Raises:
        ProblemError: it is no form, or no form of ours.
        InvalidRequestError: as ``read_object`` says.
    """
    if request.mimetype != "multipart/form-data":
        raise ProblemError(
            "unsupported-media-type",
            "the form was not sent as multipart/form-data",
            hint="Send the form on /ui/, or JSON to POST /generate.",
        )
    sent = read_object({*text_fields, FORM_TOKEN}, file_fields) if request.content_length else {}
    check_form_token(sent.pop(FORM_TOKEN, None))
    return sent


def go_to(endpoint: str, **values: Any) -> Response:
    """To a page after a form: a redirect, also for htmx, which then loads the whole page."""
    if not by_htmx():
        # No script runs there: a job's page has to renew itself.
        renew = 1 if endpoint == "web.job_page" else None
        return redirect(url_for(endpoint, **values, renew=renew), code=303)
    target = url_for(endpoint, **values)
    response = make_response("", 200)
    response.headers["HX-Redirect"] = target
    return response


def state_of_service() -> dict[str, Any]:
    """For the line that says whether pictures can be made now."""
    held = services()
    return {
        "checks": checks(held.settings, held.store, now=held.clock()),
        "queue": held.store.jobs.queue(),
    }
