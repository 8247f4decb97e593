"""The form of a request: what was typed, what a model offers, and the JSON body it stands for."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rockiln.api.admission import largest_size
from rockiln.api.services import Services
from rockiln.domain.model import ModelProfile
from rockiln.domain.request import GenerationParameters, GenerationRequest
from rockiln.domain.resolution import resolve

TEXT_FIELDS = ("prompt", "negative_prompt", "model", "scheduler", "prompt_syntax")
WHOLE_FIELDS = ("width", "height", "num_inference_steps", "seed", "num_images", "clip_skip")
DECIMAL_FIELDS = ("guidance_scale", "strength")
# Of the second pass; together they are the request's ``hires``.
HIRES_FIELDS = {
    "hires_width": "width",
    "hires_height": "height",
    "hires_steps": "num_inference_steps",
    "hires_strength": "strength",
}
# Of one ControlNet; the form has room for no more.
CONTROL_FIELDS = {
    "control": "name",
    "control_scale": "scale",
    "control_start": "start",
    "control_end": "end",
}
# Not of the request: the chosen shape, and a job whose input pictures are taken again.
OWN_FIELDS = ("size", "inputs_from")
FILE_FIELDS = frozenset({"image", "mask"})
CONTROL_IMAGE = "control_image"
FORM_FIELDS = frozenset(
    {*TEXT_FIELDS, *WHOLE_FIELDS, *DECIMAL_FIELDS, *HIRES_FIELDS, *CONTROL_FIELDS, *OWN_FIELDS}
)

_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")
_SHAPES = (
    ("Square", 1, 1),
    ("Landscape", 4, 3),
    ("Wide", 16, 9),
    ("Portrait", 3, 4),
    ("Tall", 9, 16),
)
_LARGER = 1.5
# Sides that large are rounded to what networks of the field were trained on.
_COARSE_FROM_PX, _COARSE_PX = 512, 64
_ICON_PX = 22


@dataclass(frozen=True)
class Preset:
    """A size that can be chosen. ``icon`` is its shape as width and height of a small drawing."""

    label: str
    width: int
    height: int

    @property
    def value(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def icon(self) -> tuple[int, int]:
        longest = max(self.width, self.height)
        return round(_ICON_PX * self.width / longest), round(_ICON_PX * self.height / longest)


def form_content(typed: Mapping[str, str]) -> dict[str, Any]:
    """Form fields as the JSON body they stand for. What is empty is left out.

    Text that is no number stays text, so that validation names the field.
    """
    content: dict[str, Any] = {}
    for name in TEXT_FIELDS:
        if typed.get(name, "").strip() or name == "prompt":
            content[name] = typed.get(name, "").replace("\r\n", "\n")
    content |= _numbers(typed, {name: name for name in WHOLE_FIELDS}, int)
    content |= _numbers(typed, {name: name for name in DECIMAL_FIELDS}, float)
    if chosen := _SIZE.fullmatch(typed.get("size", "")):
        content |= {"width": int(chosen[1]), "height": int(chosen[2])}
    whole = {field: name for field, name in HIRES_FIELDS.items() if name != "strength"}
    hires = _numbers(typed, whole, int)
    if hires:
        content["hires"] = hires | _numbers(typed, {"hires_strength": "strength"}, float)
    if name := typed.get("control", "").strip():
        numbers = {field: part for field, part in CONTROL_FIELDS.items() if part != "name"}
        content["controlnets"] = [{"name": name, **_numbers(typed, numbers, float)}]
    return content


def _numbers(
    typed: Mapping[str, str], names: Mapping[str, str], convert: type[int] | type[float]
) -> dict[str, Any]:
    texts = {name: typed.get(field, "").strip() for field, name in names.items()}
    return {name: _number(text, convert) for name, text in texts.items() if text}


def _number(text: str, convert: type[int] | type[float]) -> int | float | str:
    try:
        return convert(text)
    except ValueError:  # also Python's own limit on digits
        return text


def typed_of(said: Mapping[str, Any]) -> dict[str, str]:
    """A request or a job's parameters as they would be typed; what is no text or number is left."""
    names = (*TEXT_FIELDS, *WHOLE_FIELDS, *DECIMAL_FIELDS)
    typed = {name: _as_typed(said.get(name)) for name in names}
    hires = said.get("hires")
    if isinstance(hires, Mapping):
        typed |= {field: _as_typed(hires.get(name)) for field, name in HIRES_FIELDS.items()}
    controlnets = said.get("controlnets")
    if isinstance(controlnets, list | tuple) and len(controlnets) == 1:
        (use,) = controlnets
        if isinstance(use, Mapping):
            typed |= {field: _as_typed(use.get(name)) for field, name in CONTROL_FIELDS.items()}
    loras = said.get("loras")
    if isinstance(loras, list | tuple):
        typed["prompt"] += "".join(
            f" <lora:{_as_typed(each.get('name'))}:{_as_typed(each.get('weight'))}>"
            for each in loras
            if isinstance(each, Mapping)
        )
    if typed["width"] and typed["height"]:
        typed["size"] = f"{typed['width']}x{typed['height']}"
    return {name: text for name, text in typed.items() if text}


def _as_typed(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    # To its last digit: a dragged picture is made again byte for byte.
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def presets(services: Services, profile: ModelProfile) -> list[Preset]:
    """Sizes of the model's own area, and a larger square, that some device here can make."""
    own = GenerationRequest(prompt="a size")
    parameters = resolve(own, profile, seed=0, picture_format="png")
    return [
        each for each in _shapes(profile) if _fits(services, parameters, each.width, each.height)
    ]


def _shapes(profile: ModelProfile) -> Iterator[Preset]:
    defaults = profile.defaults
    area = defaults.width * defaults.height
    seen = {(defaults.width, defaults.height)}  # the model's own is offered by itself
    for label, across, down in _SHAPES:
        side = math.sqrt(area / (across * down))
        size = _rounded(profile, side * across), _rounded(profile, side * down)
        if size not in seen:
            seen.add(size)
            yield Preset(label, *size)
    larger = _rounded(profile, math.sqrt(area) * _LARGER)
    if (larger, larger) not in seen:
        yield Preset("Large square", larger, larger)


def _rounded(profile: ModelProfile, side: float) -> int:
    grid = _COARSE_PX if profile.defaults.width >= _COARSE_FROM_PX else profile.side_grid_px
    fitting = min(max(side, profile.min_side_px), profile.max_side_px)
    return round(fitting / grid) * grid


def _fits(services: Services, parameters: GenerationParameters, width: int, height: int) -> bool:
    largest = largest_size(services, replace(parameters, width=width, height=height))
    # None: nothing is known of any device, or no size fits, which admission will say.
    return largest is None or (largest["width"], largest["height"]) == (width, height)
