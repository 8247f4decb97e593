"""OpenAI's image requests in the words of ``POST /generate``."""

from __future__ import annotations

import re
from typing import Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field

from rockiln.api.body import read_object
from rockiln.api.calls import Wanted
from rockiln.api.input_pictures import mask_of_transparency
from rockiln.api.services import services
from rockiln.api.validation import validate
from rockiln.domain.errors import InvalidRequestError
from rockiln.domain.request import (
    NUM_IMAGES_MAX,
    STEPS_MAX,
    ControlNetRequest,
    HiresRequest,
    LoraRequest,
    PictureBytes,
    PictureFormat,
)

_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
# Steps of each quality, as a share of the model's own.
_QUALITIES = {
    "low": 0.5,
    "medium": 1.0,
    "standard": 1.0,
    "auto": 1.0,
    "high": 1.5,
    "hd": 1.5,
    "xhigh": 2.0,
    "max": 2.0,
}
_TEXTS = frozenset(
    {
        "prompt", "negative_prompt", "model", "size", "quality", "response_format",
        "output_format", "background", "moderation", "style", "user", "scheduler",
        "input_fidelity", "safety_identifier",
    }
)  # fmt: skip
_FILES = frozenset({"image", "image[]", "mask"})
# What our fields are called there.
_THEIR_FIELDS = {
    "width": "size",
    "height": "size",
    "num_images": "n",
    "format": "output_format",
}


class _ImagesRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    model: str | None = Field(default=None, description="Model id, see GET /v1/models.")
    n: int | None = Field(default=None, ge=1, le=NUM_IMAGES_MAX)
    size: str | None = Field(
        default=None, max_length=16, description="WIDTHxHEIGHT, or auto for the model's own."
    )
    response_format: Literal["url", "b64_json"] | None = None
    user: str | None = Field(default=None, max_length=1000, description="Not used.")
    safety_identifier: str | None = Field(default=None, max_length=1000, description="Not used.")


class VariationsRequest(_ImagesRequest):
    """The body of ``POST /v1/images/variations``."""

    image: PictureBytes


class GenerationsRequest(_ImagesRequest):
    """The body of ``POST /v1/images/generations``: OpenAI's fields, then ours and others'."""

    prompt: str
    quality: Literal["low", "medium", "high", "xhigh", "max", "standard", "hd", "auto"] | None = (
        Field(
            default=None, description="Half, all, one and a half, or twice the model's own steps."
        )
    )
    output_format: PictureFormat | None = None
    output_compression: int | None = Field(
        default=None, ge=0, le=100, description="Not followed: pictures have one quality."
    )
    background: Literal["opaque", "auto"] | None = None
    moderation: Literal["low", "auto"] | None = Field(default=None, description="Not used.")
    style: Literal["vivid", "natural"] | None = Field(default=None, description="Not used.")
    stream: bool | None = None
    partial_images: int | None = Field(default=None, ge=0, le=3)

    negative_prompt: str | None = None
    seed: int | None = None
    rng_seed: int | None = Field(default=None, description="As seed.")
    num_inference_steps: int | None = None
    steps: int | None = Field(default=None, description="As num_inference_steps.")
    guidance_scale: float | None = None
    cfg_scale: float | None = Field(default=None, description="As guidance_scale.")
    true_cfg_scale: float | None = Field(default=None, description="As guidance_scale.")
    scheduler: str | None = None
    strength: float | None = None
    clip_skip: int | None = None
    loras: list[LoraRequest] | None = None
    controlnets: list[ControlNetRequest] | None = None
    hires: HiresRequest | None = None
    vae_use_tiling: bool | None = Field(default=None, description="The planner decides.")
    vae_use_slicing: bool | None = Field(default=None, description="The planner decides.")


class EditsRequest(GenerationsRequest):
    """The body of ``POST /v1/images/edits``."""

    image: PictureBytes = Field(description="What is changed.")
    mask: PictureBytes | None = Field(
        default=None, description="Of the size of image; what is transparent is drawn anew."
    )
    input_fidelity: Literal["high", "low"] | None = Field(default=None, description="Not used.")


AnyRequest = GenerationsRequest | VariationsRequest


def read_images_request(model: type[AnyRequest]) -> AnyRequest:
    """The body of the request at hand. Raises InvalidRequestError, ProblemError."""
    content = read_object(_TEXTS, _FILES)
    if "image[]" in content:  # how the SDKs send a list; of several the body's reader said no
        if "image" in content:
            _refuse("image", "it comes more than once")
        content["image"] = content.pop("image[]")
    return validate(model, content)


def wanted(given: AnyRequest) -> Wanted:
    """The request in our words. Raises InvalidRequestError."""
    content: dict[str, Any] = {"model": given.model, "num_images": given.n or 1}
    if given.size not in {None, "auto"}:
        size = _SIZE.fullmatch(given.size or "")
        if size is None:
            _refuse("size", "it is neither WIDTHxHEIGHT nor auto")
        content |= {"width": int(size[1]), "height": int(size[2])}
    if isinstance(given, VariationsRequest):
        return Wanted({**_said(content), "prompt": "a variation", "image": given.image})
    content |= {
        "prompt": given.prompt,
        "negative_prompt": given.negative_prompt,
        "seed": _one_of(given, "seed", "rng_seed"),
        "num_inference_steps": _steps(given),
        "guidance_scale": _one_of(given, "guidance_scale", "true_cfg_scale", "cfg_scale"),
        "scheduler": given.scheduler,
        "strength": given.strength,
        "clip_skip": given.clip_skip,
        **given.model_dump(include={"loras", "controlnets", "hires"}, exclude_unset=True),
    }
    if isinstance(given, EditsRequest):
        content["image"] = given.image
        if given.mask is not None:
            content["mask"] = mask_of_transparency(given.mask, "mask")
    return Wanted(_said(content), given.output_format or "png")


def their_error(error: InvalidRequestError) -> InvalidRequestError:
    """The refusal with the fields as they are called there."""
    errors = [
        {**each, "field": _THEIR_FIELDS.get(each["field"], each["field"])}
        for each in error.members.get("errors", [])
    ]
    return InvalidRequestError(error.detail, **{**error.members, "errors": errors})


def _said(content: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if value is not None}


def _one_of(given: GenerationsRequest, *names: str) -> Any:
    said = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    if len(set(said.values())) > 1:
        _refuse(names[0], f"{' and '.join(said)} say different things")
    return next(iter(said.values()), None)


def _steps(given: GenerationsRequest) -> int | None:
    steps: int | None = _one_of(given, "num_inference_steps", "steps")
    share = _QUALITIES[given.quality or "auto"]
    if steps is not None or share == 1.0:
        return steps
    catalogue = services().catalogue
    profile = (
        catalogue.default(services().settings.default_model)
        if given.model is None
        else catalogue.models.get(given.model)
    )
    if profile is None:
        return None
    return min(STEPS_MAX, max(1, round(profile.defaults.num_inference_steps * share)))


def _refuse(field: str, message: str) -> NoReturn:
    raise InvalidRequestError(
        f"{field}: {message}", errors=[{"field": field, "message": message, "hint": None}]
    )
