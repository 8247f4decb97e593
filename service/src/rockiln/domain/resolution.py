"""From what a client asked of a model to what a job runs with. Nothing is clamped. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rockiln.domain.embeddings import names_in
from rockiln.domain.errors import InvalidRequestError
from rockiln.domain.model import Feature, ModelProfile
from rockiln.domain.request import (
    EMBEDDINGS_MAX,
    LORA_WEIGHT_MAX,
    LORAS_MAX,
    ControlNetUse,
    GenerationParameters,
    GenerationRequest,
    HiresPass,
    HiresRequest,
    LoraUse,
    PictureFormat,
    steps_run,
)
from rockiln.domain.sampling import STEPS_LIMITS

DEFAULT_STRENGTH = 0.8
_SHOWN_NAMES = 20
_LORA_TAG = re.compile(r"<lora:([^:<>]+)(?::([^:<>]*))?>")
_FieldError = dict[str, Any]


@dataclass(frozen=True)
class InputPicture:
    """A picture to start from, stored under its SHA-256. Sides in px."""

    digest: str
    width: int
    height: int


def resolve(
    request: GenerationRequest,
    profile: ModelProfile,
    *,
    seed: int,
    picture_format: PictureFormat,
    image: InputPicture | None = None,
    mask: InputPicture | None = None,
    controls: Sequence[InputPicture] = (),
    embeddings: Collection[str] = (),
) -> GenerationParameters:
    """Makes every choice the request left open; refuses what this model cannot draw.

    Args:
        seed: where the request names none.
        image, mask, controls: what became of the request's; of each ControlNet its picture.
        embeddings: names of the textual inversions that are there.

    Raises:
        InvalidRequestError: every field that is not the model's, with its limit.
    """
    defaults, grid = profile.defaults, profile.side_grid_px
    own = (defaults.width, defaults.height)
    given = image or next(iter(controls), None)
    if given is not None:
        own = (given.width // grid * grid, given.height // grid * grid)
    width = own[0] if request.width is None else request.width
    height = own[1] if request.height is None else request.height
    steps = _first(request.num_inference_steps, defaults.num_inference_steps)
    strength = None if request.image is None else _first(request.strength, DEFAULT_STRENGTH)
    scheduler = _first(request.scheduler, defaults.scheduler)
    errors = [*_side_errors(profile, width=width, height=height)]
    if scheduler not in profile.schedulers:
        errors.append(
            {
                "field": "scheduler",
                "message": f"{scheduler} does not sample model {profile.id}",
                "limit": {"allowed": list(profile.schedulers)},
                "hint": f"use {' or '.join(profile.schedulers)}",
            }
        )
    prompt, tagged = _take_lora_tags(request.prompt, errors)
    loras = (*(LoraUse(each.name, each.weight) for each in request.loras), *tagged)
    errors += _feature_errors(request, profile, loras)
    named = _named_embeddings(request, profile, embeddings, errors)
    errors += _input_errors(request, image, mask)
    errors += _control_errors(request, controls, (width, height), grid)
    errors += _steps_errors(request, scheduler, steps)
    if strength is not None:
        errors += _strength_errors("strength", steps, strength)
    hires = None
    if request.hires is not None:
        hires = _hires(request.hires, profile, (width, height), steps, errors)
    if errors:
        raise InvalidRequestError(str(errors[0]["message"]), errors=errors)
    return GenerationParameters(
        prompt=prompt,
        negative_prompt=request.negative_prompt,
        width=width,
        height=height,
        num_inference_steps=steps,
        guidance_scale=_first(request.guidance_scale, defaults.guidance_scale),
        seed=_first(request.seed, seed),
        scheduler=scheduler,
        num_images=request.num_images,
        model=profile.id,
        format=picture_format,
        image=None if image is None else image.digest,
        mask=None if mask is None else mask.digest,
        strength=strength,
        hires=hires,
        loras=loras,
        clip_skip=request.clip_skip,
        prompt_syntax=request.prompt_syntax,
        embeddings=named,
        controlnets=tuple(
            ControlNetUse(each.name, control.digest, each.scale, each.start, each.end)
            for each, control in zip(request.controlnets, controls, strict=True)
        ),
    )


def _first(asked: Any, default: Any) -> Any:
    return default if asked is None else asked


def _side_errors(profile: ModelProfile, prefix: str = "", **sides: int) -> Iterator[_FieldError]:
    low, high, grid = profile.min_side_px, profile.max_side_px, profile.side_grid_px
    for name, side in sides.items():
        if not low <= side <= high:
            yield {
                "field": prefix + name,
                "message": f"{side} px is outside what model {profile.id} draws",
                "limit": {"min": low, "max": high},
                "hint": f"use {low} to {high} px",
            }
        elif side % grid:
            below = side - side % grid
            yield {
                "field": prefix + name,
                "message": f"{side} px is not on the grid of model {profile.id}",
                "limit": {"multiple_of": grid},
                "hint": f"use {below} or {below + grid} px",
            }


def _feature_errors(
    request: GenerationRequest, profile: ModelProfile, loras: tuple[LoraUse, ...]
) -> Iterator[_FieldError]:
    """What is asked for and is not in this model's family."""
    asked: dict[Feature, tuple[str, bool]] = {
        "image": ("image", request.image is not None),
        "mask": ("mask", request.mask is not None),
        "hires": ("hires", request.hires is not None),
        "loras": ("loras", bool(loras)),
        "clip_skip": ("clip_skip", request.clip_skip > 1),
        "weighted_prompt": ("prompt_syntax", request.prompt_syntax == "weighted"),
        "embeddings": ("embeddings", bool(request.embeddings)),
        "controlnets": ("controlnets", bool(request.controlnets)),
    }
    for feature, (field, wanted) in asked.items():
        if wanted and feature not in profile.features:
            yield {
                "field": field,
                "message": f"model {profile.id} (family {profile.family}) does not take it",
                "hint": "leave it out, or use another model",
            }
    encoders = profile.architecture.text_encoders if profile.architecture else ()
    layers = min((encoder.layers for encoder in encoders), default=None)
    if layers is not None and request.clip_skip > layers - 1 and request.clip_skip > 1:
        yield {
            "field": "clip_skip",
            "message": f"the text encoder of model {profile.id} has {layers} layers",
            "limit": {"min": 1, "max": max(1, layers - 1)},
            "hint": f"use 1 to {max(1, layers - 1)}",
        }
    names = [lora.name for lora in loras]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield {"field": "loras", "message": f"{name} comes more than once", "hint": "name it once"}
    if len(names) > LORAS_MAX:
        yield {
            "field": "loras",
            "message": f"{len(names)} LoRAs, with those in the prompt",
            "limit": {"max": LORAS_MAX},
            "hint": f"use at most {LORAS_MAX}",
        }


def _input_errors(
    request: GenerationRequest, image: InputPicture | None, mask: InputPicture | None
) -> Iterator[_FieldError]:
    if request.image is None:
        for field in ("mask", "strength"):
            if getattr(request, field) is not None:
                yield {
                    "field": field,
                    "message": "there is no image that it could be for",
                    "hint": "send image too, or leave it out",
                }
    if request.image is not None and request.hires is not None:
        yield {
            "field": "hires",
            "message": "a second pass is for pictures drawn from noise",
            "hint": "send image with the width and height that are wanted",
        }
    if image and mask and (image.width, image.height) != (mask.width, mask.height):
        yield {
            "field": "mask",
            "message": f"it is {mask.width}x{mask.height} px, the image "
            f"{image.width}x{image.height}",
            "hint": "send both in one size",
        }


def _control_errors(
    request: GenerationRequest,
    controls: Sequence[InputPicture],
    size: tuple[int, int],
    grid: int,
) -> Iterator[_FieldError]:
    """What a map shows has to lie where it is to be drawn: it is scaled, never stretched."""
    width, height = size
    for place, (asked, control) in enumerate(zip(request.controlnets, controls, strict=True)):
        if asked.start >= asked.end:
            yield {
                "field": f"controlnets.{place}.end",
                "message": f"it ends at {asked.end:g}, before it begins at {asked.start:g}",
                "hint": "use an end above start",
            }
        across, down = control.width * height, control.height * width
        if abs(across - down) >= grid * max(control.width, control.height):
            yield {
                "field": f"controlnets.{place}.image",
                "message": f"it is {control.width}x{control.height} px, the picture "
                f"{width}x{height}: it would be stretched",
                "hint": f"send it as {width}x{height} px or in that shape",
            }


def _steps_errors(request: GenerationRequest, scheduler: str, steps: int) -> Iterator[_FieldError]:
    most = STEPS_LIMITS.get(scheduler)
    second = request.hires.num_inference_steps if request.hires is not None else None
    asked = {"num_inference_steps": steps, "hires.num_inference_steps": second or 0}
    for field, count in asked.items():
        if most is not None and count > most:
            yield {
                "field": field,
                "message": f"{scheduler} takes no more than {most} steps",
                "limit": {"min": 1, "max": most},
                "hint": f"use 1 to {most}; 4 to 8 are what it is made for",
            }


def _strength_errors(field: str, steps: int, strength: float) -> Iterator[_FieldError]:
    if steps_run(steps, strength) < 1:
        least = -(-100 // steps) / 100
        yield {
            "field": field,
            "message": f"{strength:g} of {steps} steps is not one step",
            "limit": {"min": least, "max": 1.0},
            "hint": f"use at least {least:g}, or more steps",
        }


def _hires(
    asked: HiresRequest,
    profile: ModelProfile,
    size: tuple[int, int],
    steps: int,
    errors: list[_FieldError],
) -> HiresPass | None:
    by_side = (asked.width, asked.height) != (None, None)
    if by_side == (asked.scale is not None) or (asked.width is None) != (asked.height is None):
        errors.append(
            {
                "field": "hires",
                "message": "it wants scale, or width and height",
                "hint": "give scale alone, or both sides",
            }
        )
        return None
    grid = profile.side_grid_px
    scale = asked.scale or 1.0
    width, height = (round(side * scale / grid) * grid for side in size)
    if asked.width is not None and asked.height is not None:
        width, height = asked.width, asked.height
    found = HiresPass(width, height, _first(asked.num_inference_steps, steps), asked.strength)
    errors += _side_errors(profile, "hires.", width=width, height=height)
    errors += _strength_errors("hires.strength", found.num_inference_steps, found.strength)
    return found


def _named_embeddings(
    request: GenerationRequest,
    profile: ModelProfile,
    known: Collection[str],
    errors: list[_FieldError],
) -> tuple[str, ...]:
    """The textual inversions that the texts name. Where a family has none, names are but words."""
    if "embeddings" not in profile.features:
        return ()
    found, unknown = names_in((request.prompt, request.negative_prompt), known)
    hint = "use one of " + ", ".join(sorted(known)[:_SHOWN_NAMES]) if known else "leave it out"
    for field, names in (("prompt", unknown), ("embeddings", request.embeddings)):
        for name in names:
            if name in found:
                continue
            message = f"there is no textual inversion {name[:100]!r} on this host"
            if name in known:
                message, hint = f"neither text has {name!r} in it", "name it in a text"
            errors.append({"field": field, "message": message, "hint": hint})
    if len(found) > EMBEDDINGS_MAX:
        errors.append(
            {
                "field": "prompt",
                "message": f"{len(found)} textual inversions",
                "limit": {"max": EMBEDDINGS_MAX},
                "hint": f"use at most {EMBEDDINGS_MAX}",
            }
        )
    return found


def _take_lora_tags(prompt: str, errors: list[_FieldError]) -> tuple[str, tuple[LoraUse, ...]]:
    """The prompt without its ``<lora:NAME:WEIGHT>``, and what they name."""
    uses = []
    for name, weight in _LORA_TAG.findall(prompt):
        try:
            value = float(weight or 1.0)
        except ValueError:
            value = LORA_WEIGHT_MAX + 1
        if abs(value) <= LORA_WEIGHT_MAX:  # no number but this one is; NaN is not
            uses.append(LoraUse(name.strip(), value))
        else:
            errors.append(
                {
                    "field": "prompt",
                    "message": f"{weight[:20]!r} is no weight of a LoRA",
                    "limit": {"min": -LORA_WEIGHT_MAX, "max": LORA_WEIGHT_MAX},
                    "hint": "write <lora:NAME:0.8>",
                }
            )
    return (_LORA_TAG.sub("", prompt).strip() if uses else prompt), tuple(uses)
