"""OpenAI's dialect: ``/v1/images/…`` and ``/v1/models``."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from flask import Blueprint, Response, request
from pydantic import BaseModel, ConfigDict, Field

from rockiln.api.calls import (
    CALL_PROBLEMS,
    WAITING_CALL_HEADERS,
    Wanted,
    cancels_on_disconnect,
    failure,
    picture_files,
    run,
)
from rockiln.api.describe import Answered, Operation, describe
from rockiln.api.json_answers import answer
from rockiln.api.openai_images import ImagesFeed, ImagesResponse, images_response
from rockiln.api.openai_request import (
    AnyRequest,
    EditsRequest,
    GenerationsRequest,
    VariationsRequest,
    read_images_request,
    their_error,
    wanted,
)
from rockiln.api.services import services
from rockiln.api.streams import STREAM_TYPE, StreamResponse
from rockiln.domain.errors import InvalidRequestError, UnknownModelError
from rockiln.domain.job import JobState
from rockiln.store.records import Job

blueprint = Blueprint("openai", __name__, url_prefix="/v1")

_PROBLEMS = (*CALL_PROBLEMS, "still-running")
_JOB_HEADERS = {"Rockiln-Job-Id": "Id of the job.", "Rockiln-Seed": "Seed of the first picture."}
_ANSWERS = {
    200: Answered(
        "The pictures, or a stream of them.",
        {"application/json": ImagesResponse, STREAM_TYPE: None},
        _JOB_HEADERS,
    )
}


class OpenAIModel(BaseModel):
    """A model of this host."""

    model_config = ConfigDict(frozen=True)

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "rockiln"
    title: str
    family: str
    licence: str
    default: bool = Field(description="Used where a request names no model.")
    size: str = Field(description="What auto means.")


class OpenAIModelList(BaseModel):
    """The models that can draw."""

    object: Literal["list"] = "list"
    data: list[OpenAIModel]


@blueprint.post("/images/generations")
@describe(
    Operation(
        summary="OpenAI: make pictures from a prompt",
        body=GenerationsRequest,
        forms=True,
        headers=WAITING_CALL_HEADERS,
        answers=_ANSWERS,
        problems=(*_PROBLEMS, "too-many-streams"),
    )
)
def create_images() -> Response:
    return _pictures(GenerationsRequest, "image_generation")


@blueprint.post("/images/edits")
@describe(
    Operation(
        summary="OpenAI: change a picture, all of it or where a mask is transparent",
        body=EditsRequest,
        forms=True,
        headers=WAITING_CALL_HEADERS,
        answers=_ANSWERS,
        problems=(*_PROBLEMS, "too-many-streams"),
    )
)
def edit_image() -> Response:
    return _pictures(EditsRequest, "image_edit")


@blueprint.post("/images/variations")
@describe(
    Operation(
        summary="OpenAI: make variations of a picture",
        body=VariationsRequest,
        forms=True,
        headers=WAITING_CALL_HEADERS,
        answers=_ANSWERS,
        problems=_PROBLEMS,
    )
)
def vary_image() -> Response:
    return _pictures(VariationsRequest, "image_edit")


@blueprint.get("/models")
@describe(
    Operation(
        summary="OpenAI: the models of this host",
        answers={200: Answered("The models.", {"application/json": OpenAIModelList})},
    )
)
def list_models() -> Response:
    return answer(OpenAIModelList(data=[_model(name) for name in services().catalogue.models]))


@blueprint.get("/models/<model_id>")
@describe(
    Operation(
        summary="OpenAI: one model of this host",
        answers={200: Answered("The model.", {"application/json": OpenAIModel})},
        problems=("unknown-model",),
    )
)
def get_model(model_id: str) -> Response:
    if model_id not in services().catalogue.models:
        raise UnknownModelError(f"no model {model_id[:64]!r} on this host")
    return answer(_model(model_id))


def _model(model_id: str) -> OpenAIModel:
    held = services()
    profile = held.catalogue.models[model_id]
    return OpenAIModel(
        id=profile.id,
        title=profile.title,
        family=profile.family,
        licence=profile.licence,
        default=held.catalogue.default(held.settings.default_model) is profile,
        size=f"{profile.defaults.width}x{profile.defaults.height}",
    )


def _pictures(
    model: type[AnyRequest], subject: Literal["image_generation", "image_edit"]
) -> Response:
    try:
        return _answered(model, subject)
    except InvalidRequestError as error:
        raise their_error(error) from error


class _Shape(BaseModel):
    """What is needed of the request once its pictures are let go."""

    stream: bool
    partial_images: int
    quality: str
    as_url: bool


def _answered(
    model: type[AnyRequest], subject: Literal["image_generation", "image_edit"]
) -> Response:
    shapes: list[_Shape] = []

    def read() -> Wanted:
        given = read_images_request(model)
        shapes.append(_shape(given))
        if shapes[0].stream:
            services().streams.check_room()
        return replace(wanted(given), waits=not shapes[0].stream)

    job = run(read)
    (shape,) = shapes
    if shape.stream:
        return _streamed(job, shape, subject)
    if job.state is not JobState.DONE:
        raise failure(job)
    document = images_response(
        job,
        picture_files(job),
        quality=shape.quality,
        url_base=request.host_url if shape.as_url else None,
    )
    return _named(
        Response(document.model_dump_json(exclude_none=True), mimetype="application/json"), job
    )


def _shape(given: AnyRequest) -> _Shape:
    as_url = given.response_format == "url"
    if isinstance(given, VariationsRequest):
        return _Shape(stream=False, partial_images=0, quality="auto", as_url=as_url)
    return _Shape(
        stream=bool(given.stream),
        partial_images=given.partial_images or 0,
        quality=given.quality or "auto",
        as_url=as_url,
    )


def _streamed(
    job: Job, shape: _Shape, subject: Literal["image_generation", "image_edit"]
) -> Response:
    held = services()
    feed = ImagesFeed(
        job,
        held.store,
        subject=subject,
        partial_images=shape.partial_images,
        quality=shape.quality,
    )
    return _named(StreamResponse(held.streams, feed, cancels=cancels_on_disconnect()), job)


def _named(response: Response, job: Job) -> Response:
    response.headers["Rockiln-Job-Id"] = job.id
    response.headers["Rockiln-Seed"] = str(job.parameters.seed)
    return response
