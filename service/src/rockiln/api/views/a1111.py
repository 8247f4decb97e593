"""A1111's dialect: ``/sdapi/v1/…``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from flask import Blueprint, Response, request
from pydantic import BaseModel, ConfigDict, RootModel

from rockiln.api.a1111_addons import embeddings, loras
from rockiln.api.a1111_controlnet import SCRIPT
from rockiln.api.a1111_images import (
    A1111Images,
    A1111Progress,
    current_job,
    images_answer,
    parameters_text,
    progress_of,
)
from rockiln.api.a1111_options import options, set_options, title_of
from rockiln.api.a1111_request import (
    Img2ImgRequest,
    Txt2ImgRequest,
    read_a1111_request,
    wanted,
)
from rockiln.api.access import owner_of_request
from rockiln.api.body import body_turn, read_json_object
from rockiln.api.calls import (
    CALL_PROBLEMS,
    WAITING_CALL_HEADERS,
    Wanted,
    failure,
    picture_files,
    run,
)
from rockiln.api.describe import Answered, Operation, describe
from rockiln.api.input_pictures import clean_picture
from rockiln.api.json_answers import answer
from rockiln.api.services import services
from rockiln.api.validation import validate
from rockiln.domain.errors import JobNotCancellableError, UnknownJobError
from rockiln.domain.job import JobState
from rockiln.domain.request import PictureBytes
from rockiln.domain.sampling import A1111_NAMES

blueprint = Blueprint("a1111", __name__, url_prefix="/sdapi/v1")

_PROBLEMS = (*CALL_PROBLEMS, "bad-request", "still-running")
_BODY_PROBLEMS = ("invalid-request", "invalid-json", "body-too-large", "unsupported-media-type")


class A1111Object(RootModel[dict[str, Any]]):
    """An object as A1111 has it."""


class A1111List(RootModel[list[dict[str, Any]]]):
    """A list as A1111 has it."""


class A1111Nothing(RootModel[dict[str, Any] | None]):
    """Nothing to say: an empty object, or null."""


class PngInfoRequest(BaseModel):
    """The body of ``POST /sdapi/v1/png-info``."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    image: PictureBytes


@blueprint.post("/txt2img")
@describe(
    Operation(
        summary="A1111: make pictures from a prompt",
        body=Txt2ImgRequest,
        headers=WAITING_CALL_HEADERS,
        answers={200: Answered("The pictures.", {"application/json": A1111Images})},
        problems=_PROBLEMS,
    )
)
def txt2img() -> Response:
    return _pictures(Txt2ImgRequest)


@blueprint.post("/img2img")
@describe(
    Operation(
        summary="A1111: make pictures from a picture",
        body=Img2ImgRequest,
        headers=WAITING_CALL_HEADERS,
        answers={200: Answered("The pictures.", {"application/json": A1111Images})},
        problems=_PROBLEMS,
    )
)
def img2img() -> Response:
    return _pictures(Img2ImgRequest)


def _pictures(model: type[Txt2ImgRequest]) -> Response:
    kept: dict[str, Any] = {}

    def read() -> Wanted:
        given = read_a1111_request(model)
        pictures = {
            "init_images",
            "mask",
            "alwayson_scripts",
        }  # as A1111 does: they are not sent back
        kept.update(given.model_dump(mode="json", exclude=pictures))
        return wanted(given)

    job = run(read)
    if job.state is JobState.CANCELLED:  # an interrupt: what is there is the answer
        return answer(images_answer(job, [], kept))
    if job.state is not JobState.DONE:
        raise failure(job)
    response = answer(images_answer(job, picture_files(job) if kept["send_images"] else [], kept))
    response.headers["Rockiln-Job-Id"] = job.id
    return response


@blueprint.get("/progress")
@describe(
    Operation(
        summary="A1111: how far the picture in hand is",
        description="skip_current_image=true leaves the preview out.",
        answers={200: Answered("So far.", {"application/json": A1111Progress})},
        problems=("store-unavailable",),
    )
)
def get_progress() -> Response:
    job, count = current_job(owner_of_request())
    skip = request.args.get("skip_current_image", "").lower() in {"true", "1"}
    return answer(progress_of(job, count, with_image=not skip))


@blueprint.post("/interrupt")
@describe(
    Operation(
        summary="A1111: cancel the picture in hand; its call answers without pictures",
        answers={200: Answered("It was asked to stop.", {"application/json": A1111Nothing})},
        problems=("store-unavailable",),
    )
)
def interrupt() -> Response:
    job, _ = current_job(owner_of_request())
    if job is not None:
        with suppress(JobNotCancellableError, UnknownJobError):  # it has just ended
            services().store.cancel(job.id)
    return answer(A1111Nothing({}))


@blueprint.post("/skip")
@describe(
    Operation(
        summary="A1111: cancel the picture in hand, as interrupt does",
        answers={200: Answered("It was asked to stop.", {"application/json": A1111Nothing})},
        problems=("store-unavailable",),
    )
)
def skip() -> Response:
    return interrupt()


@blueprint.get("/options")
@describe(
    Operation(
        summary="A1111: the options",
        answers={200: Answered("All of them.", {"application/json": A1111Object})},
        problems=("store-unavailable",),
    )
)
def get_options() -> Response:
    return answer(A1111Object(options()))


@blueprint.post("/options")
@describe(
    Operation(
        summary="A1111: choose the model",
        description="Takes the whole object or a part; sd_model_checkpoint is followed.",
        body=A1111Object,
        answers={200: Answered("Done.", {"application/json": A1111Nothing})},
        problems=(*_BODY_PROBLEMS, "unknown-model", "store-unavailable"),
    )
)
def post_options() -> Response:
    set_options(read_json_object())
    return answer(A1111Nothing(None))


@blueprint.post("/png-info")
@describe(
    Operation(
        summary="A1111: the parameters that a picture records",
        body=PngInfoRequest,
        answers={200: Answered("What it says.", {"application/json": A1111Object})},
        problems=(*_BODY_PROBLEMS, "queue-full"),
    )
)
def png_info() -> Response:
    with body_turn():
        image = validate(PngInfoRequest, read_json_object()).image
        clean_picture(image, "image")
        text = parameters_text(image)
    return answer(A1111Object({"info": text, "items": {"parameters": text}, "parameters": {}}))


def _models() -> list[dict[str, Any]]:
    return [
        {
            "title": title_of(profile),
            "model_name": profile.id,
            "hash": None,
            "sha256": None,
            "filename": profile.id,
            "config": None,
        }
        for profile in services().catalogue.models.values()
    ]


def _samplers() -> list[dict[str, Any]]:
    names = {A1111_NAMES[name][0]: name for name in reversed(A1111_NAMES)}
    return [
        {"name": sampler, "aliases": [name], "options": {}}
        for sampler, name in reversed(names.items())
    ]


def _schedules() -> list[dict[str, Any]]:
    labels = ["Automatic", *dict.fromkeys(schedule for _, schedule in A1111_NAMES.values())]
    return [
        {
            "name": label.lower(),
            "label": label,
            "aliases": None,
            "default_rho": -1,
            "need_inner_model": False,
        }
        for label in labels
    ]


def _memory() -> dict[str, Any]:
    devices = services().store.workers.devices()
    total = devices[0]["total_bytes"] if devices else 0
    return {"ram": {"total": total}, "cuda": {"error": "see GET /system"}}


_LISTS: dict[str, Callable[[], Any]] = {
    "sd-models": _models,
    "samplers": _samplers,
    "schedulers": _schedules,
    "sd-vae": list,
    "loras": loras,
    "upscalers": list,
    "latent-upscale-modes": list,
    "hypernetworks": list,
    "face-restorers": list,
    "prompt-styles": list,
    "extensions": list,
    "script-info": list,
}
_OBJECTS: dict[str, Callable[[], Any]] = {
    "memory": _memory,
    "cmd-flags": lambda: {"api": True},
    "embeddings": embeddings,
    "scripts": lambda: {"txt2img": [SCRIPT], "img2img": [SCRIPT]},
}
_DONE = (
    "refresh-checkpoints",
    "refresh-vae",
    "refresh-loras",
    "refresh-embeddings",
    "unload-checkpoint",
    "reload-checkpoint",
)


def _add(name: str, method: str, said: Any, model: type[BaseModel], summary: str) -> None:
    """A route that answers with what ``said`` gives."""

    @describe(
        Operation(
            summary=summary,
            answers={200: Answered("As A1111 answers.", {"application/json": model})},
            problems=("store-unavailable",),
        )
    )
    def view() -> Response:
        return answer(model.model_validate(said()))

    endpoint = f"{method.lower()}_{name.replace('-', '_')}"
    blueprint.add_url_rule(f"/{name}", endpoint, view, methods=[method])


for _name, _said in _LISTS.items():
    _add(_name, "GET", _said, A1111List, f"A1111: {_name}")
for _name, _said in _OBJECTS.items():
    _add(_name, "GET", _said, A1111Object, f"A1111: {_name}")
for _name in _DONE:
    _add(_name, "POST", dict, A1111Nothing, f"A1111: {_name}; nothing needs to be done")
