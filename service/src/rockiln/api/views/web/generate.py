"""The page to ask for a picture: its form, and beside it what becomes of it."""

from __future__ import annotations

from typing import Any

from flask import make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from rockiln.api.access import owner_of_request
from rockiln.api.admission import accept_job, read_request
from rockiln.api.body import body_turn
from rockiln.api.controlnets import controlnets_for
from rockiln.api.documents import job_document
from rockiln.api.picture_settings import PictureSettings
from rockiln.api.repeats import input_pictures
from rockiln.api.services import services
from rockiln.api.views.jobs import find_job
from rockiln.api.views.web.form import (
    CONTROL_FIELDS,
    CONTROL_IMAGE,
    FILE_FIELDS,
    FORM_FIELDS,
    form_content,
    presets,
    typed_of,
)
from rockiln.api.views.web.jobs import live_context
from rockiln.api.views.web.pages import (
    Trouble,
    as_trouble,
    blueprint,
    by_htmx,
    go_to,
    read_form,
    state_of_service,
)
from rockiln.domain.errors import InvalidRequestError
from rockiln.domain.job import RUNNING_STATES, WAITING_STATES
from rockiln.domain.request import (
    CLIP_SKIP_MAX,
    CONTROL_SCALE_MAX,
    GUIDANCE_MAX,
    NUM_IMAGES_MAX,
    PROMPT_MAX_CHARS,
    SEED_MAX,
    SIDE_GRID_PX,
    STEPS_MAX,
)
from rockiln.registry.loras import lora_files
from rockiln.store.records import Job

_RECENT_JOBS = 8
_LIMITS = {
    "prompt_characters": PROMPT_MAX_CHARS,
    "steps": STEPS_MAX,
    "guidance_scale": GUIDANCE_MAX,
    "seed": SEED_MAX,
    "num_images": NUM_IMAGES_MAX,
    "clip_skip": CLIP_SKIP_MAX,
    "control_scale": CONTROL_SCALE_MAX,
    "grid_px": SIDE_GRID_PX,
}


@blueprint.get("/")
def root() -> Response:
    return redirect(url_for("web.home"))


@blueprint.get("/ui/")
def home() -> str:
    typed = {"model": request.args.get("model", "")}
    if "again" in request.args:
        typed = typed_again(find_job(request.args["again"]))
    return generate_page(typed)


@blueprint.get("/ui/form")
def form_of_model() -> str:
    """The form's fields for another model, with what was typed."""
    typed = {name: request.args[name] for name in FORM_FIELDS if request.args.get(name)}
    return render_template("_form.html", **form_context(typed))


@blueprint.post("/ui/generate")
def submit() -> Response:
    with body_turn():
        sent = read_form(FORM_FIELDS, {*FILE_FIELDS, CONTROL_IMAGE})
        typed = {name: sent[name] for name in FORM_FIELDS if isinstance(sent.get(name), str)}
        try:
            with as_trouble():
                job = _accept(typed, sent)
        except Trouble as trouble:
            return _refused(typed, trouble)
    if not by_htmx():
        return go_to("web.job_page", job_id=job.id)
    return make_response(render_template("_live.html", on_page=False, **live_context(job)))


def _accept(typed: dict[str, str], sent: dict[str, Any]) -> Job:
    content = form_content(typed)
    before: dict[str, Any] = {}
    if typed.get("inputs_from"):
        before = input_pictures(find_job(typed["inputs_from"]))
    controlled = before.pop("controlnets", [])
    content |= before
    if "controlnets" in content:
        image = sent.get(CONTROL_IMAGE) or (controlled[0]["image"] if controlled else None)
        if not image:
            error = {"field": CONTROL_IMAGE, "message": "it is missing", "hint": "choose a file"}
            raise InvalidRequestError("the map is missing", errors=[error])
        content["controlnets"][0]["image"] = image
    elif len(controlled) > 1:  # the form has no room for them
        content["controlnets"] = controlled
    content |= {name: sent[name] for name in FILE_FIELDS if sent.get(name)}
    wanted = read_request(services(), content)
    return accept_job(
        services(), wanted, picture_format=wanted.format or "png", idempotency_key=None
    )


def _refused(typed: dict[str, str], trouble: Trouble) -> Response:
    cause = trouble.__cause__
    told: dict[str, Any] = {"trouble": trouble.words}
    if isinstance(cause, InvalidRequestError):
        errors = {_field(each["field"]): each for each in cause.members["errors"]}
        told = {"errors": errors}
    if by_htmx():
        fragment = render_template("_form.html", **form_context(typed, **told))
        response = make_response(fragment, trouble.status)
        response.headers["HX-Retarget"] = "#form"
        response.headers["HX-Reswap"] = "outerHTML show:top"
        return response
    return make_response(generate_page(typed, **told), trouble.status)


def _field(name: str) -> str:
    """Where the form shows what is wrong with a field of the request."""
    outer, _, inner = name.partition(".")
    if outer == "hires":
        return f"hires_{inner or 'width'}"
    if outer == "controlnets":
        part = inner.rpartition(".")[2]
        fields = {**{of: field for field, of in CONTROL_FIELDS.items()}, "image": CONTROL_IMAGE}
        return fields.get(part, "control")
    return outer


def typed_again(job: Job) -> dict[str, str]:
    """The form of a job's request."""
    typed = typed_of(job.parameters.as_dict())
    if job.parameters.inputs:
        typed["inputs_from"] = job.id
    return typed


def generate_page(typed: dict[str, str], **told: Any) -> str:
    """The whole page; ``told`` as of ``form_context``."""
    return render_template("generate.html", **form_context(typed, **told), **_page_context())


def form_context(
    typed: dict[str, str],
    *,
    errors: dict[str, Any] | None = None,
    trouble: dict[str, str] | None = None,
    restored: PictureSettings | None = None,
) -> dict[str, Any]:
    """What the form is drawn from.

    Args:
        typed: by field.
        restored: where a file brought what is in it.
    """
    held = services()
    catalogue = held.catalogue
    default = catalogue.default(held.settings.default_model)
    chosen = catalogue.models.get(typed.get("model", ""), default)
    sizes = [] if chosen is None else presets(held, chosen)
    size = typed.get("size", "")
    if size and size not in {each.value for each in sizes}:
        size = "custom"
    if not size and (typed.get("width") or typed.get("height")):
        size = "custom"
    return {
        "typed": typed,
        "size": size,
        "sizes": sizes,
        "errors": errors or {},
        "trouble": trouble,
        "restored": restored,
        "limits": _LIMITS,
        "models": [profile for _, profile in sorted(catalogue.models.items())],
        "broken_models": sorted(catalogue.broken.items()),
        "chosen": chosen,
        "loras": sorted(lora_files(held.settings.model_dirs)),
        "controlnets": [] if chosen is None else controlnets_for(held, chosen),
        **state_of_service(),
    }


def _page_context() -> dict[str, Any]:
    """What stands beside the form: the job in hand, and the last pictures."""
    jobs = services().store.jobs
    owner = owner_of_request() or None
    active = jobs.page(limit=1, states=(*RUNNING_STATES, *WAITING_STATES), owner=owner)
    recent = jobs.page(limit=_RECENT_JOBS, owner=owner)
    return {
        "live": live_context(active[0]) if active else None,
        "jobs": [job_document(job) for job in recent if job.ended],
    }
