"""The ControlNet extension's part of A1111's requests, in the words of ``POST /generate``."""

from __future__ import annotations

import re
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from rockiln.api.validation import validate
from rockiln.domain.errors import InvalidRequestError
from rockiln.domain.request import PictureBytes

SCRIPT = "controlnet"
_PLAIN_MODULES = ("none", "None", "")
_BALANCED = (0, "Balanced")
_BOTH_PASSES = (None, "Both", "HiResFixOption.BOTH")
# As the extension shows a model: its name, and how its file's hash begins.
_HASHED = re.compile(r"(.+) \[[0-9a-f]{8}\]")


class UnitPicture(BaseModel):
    """A picture with its mask, as some versions of the extension have it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    image: PictureBytes
    mask: PictureBytes | None = None


class ControlNetUnit(BaseModel):
    """One of ``alwayson_scripts.controlnet.args``. What is not listed here is not looked at."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    enabled: bool = True
    model: str | None = None
    module: str | None = Field(default="none", description="None: pictures are taken as they are.")
    image: UnitPicture | PictureBytes | None = None
    input_image: PictureBytes | None = Field(default=None, description="The older image.")
    mask: PictureBytes | None = None
    weight: float = 1.0
    guidance_start: float = 0.0
    guidance_end: float = 1.0
    control_mode: int | str = Field(default=0, description="0, Balanced: there is no other.")
    hr_option: str | None = Field(default=None, description="Both: there is no other.")


def controlnets_of(
    scripts: dict[str, JsonValue] | None, start: bytes | None
) -> list[dict[str, Any]]:
    """What the extension's units ask for.

    Args:
        scripts: ``alwayson_scripts``.
        start: the picture that img2img starts from; a unit without one of its own follows it.

    Raises:
        InvalidRequestError: another script, or something that cannot be done here.
    """
    found: list[dict[str, Any]] = []
    for name, said in (scripts or {}).items():
        field = f"alwayson_scripts.{name[:64]}"
        args = said.get("args") if isinstance(said, dict) else None
        if not isinstance(args, list):
            _refuse(field, "it has no args")
        if args and name.lower() != SCRIPT:
            _refuse(field, "there is no such script here")
        for place, unit in enumerate(args):
            if not isinstance(unit, dict):
                _refuse(f"{field}.args.{place}", "it is no object")
            try:
                given = validate(ControlNetUnit, unit)
                if given.enabled:
                    found.append(_controlnet(given, start))
            except InvalidRequestError as error:
                first = error.members["errors"][0]
                raise InvalidRequestError(
                    f"{field}.args.{place}.{first['field']}: {first['message']}",
                    errors=[
                        {**each, "field": f"{field}.args.{place}.{each['field']}"}
                        for each in error.members["errors"]
                    ],
                ) from error
    return found


def _controlnet(unit: ControlNetUnit, start: bytes | None) -> dict[str, Any]:
    if unit.module not in _PLAIN_MODULES:
        _refuse("module", "there are no preprocessors here; send the map, with the module none")
    if unit.control_mode not in _BALANCED:
        _refuse("control_mode", "Balanced is the only one here")
    if unit.hr_option not in _BOTH_PASSES:
        _refuse("hr_option", "both passes follow the picture")
    image, mask = unit.input_image, unit.mask
    if isinstance(unit.image, UnitPicture):
        image, mask = unit.image.image, unit.image.mask or mask
    elif unit.image:
        image = unit.image
    if mask:
        _refuse("mask", "the whole picture is followed; mask what is drawn anew in img2img")
    image = image or start
    if not image:
        _refuse("image", "it is missing")
    name = unit.model or ""
    if match := _HASHED.fullmatch(name):
        name = match[1]
    if name in {"", "None"}:
        _refuse("model", "it is missing; GET /controlnet/model_list")
    return {
        "name": name,
        "image": image,
        "scale": unit.weight,
        "start": unit.guidance_start,
        "end": unit.guidance_end,
    }


def _refuse(field: str, message: str) -> NoReturn:
    raise InvalidRequestError(
        f"{field}: {message}", errors=[{"field": field, "message": message, "hint": None}]
    )
