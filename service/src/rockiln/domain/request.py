"""What a client may ask for, and what a job finally runs with."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from rockiln.domain.sampling import SchedulerName, scheduler_named

PictureFormat = Literal["png", "jpeg", "webp"]
PromptSyntax = Literal["plain", "weighted"]

PROMPT_MAX_CHARS = 10_000
SEED_MAX = 2**32 - 1
STEPS_MAX = 150
GUIDANCE_MAX = 30.0
NUM_IMAGES_MAX = 10
SIDE_GRID_PX = 8
SIDE_MIN_PX = 64
SIDE_MAX_PX = 2048
STRENGTH_MIN = 0.01
LORA_WEIGHT_MAX = 4.0
LORAS_MAX = 8
CONTROLNETS_MAX = 3
CONTROL_SCALE_MAX = 2.0
EMBEDDINGS_MAX = 16
CLIP_SKIP_MAX = 12
HIRES_SCALE_MAX = 4.0

Side = Annotated[int, Field(ge=SIDE_MIN_PX, le=SIDE_MAX_PX, multiple_of=SIDE_GRID_PX)]
Steps = Annotated[int, Field(ge=1, le=STEPS_MAX)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Strength = Annotated[float, Field(ge=STRENGTH_MIN, le=1.0)]
MODEL_ID_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"
# Of a file in loras/ or embeddings/, without its suffix, or of a folder or file in controlnets/.
ADDON_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


def _decoded(value: Any) -> Any:
    """Base64, also as a data URL, to bytes; what an upload brought as bytes stays."""
    if not isinstance(value, str):
        return value
    if value.startswith("data:"):
        value = value.partition(",")[2]
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise PydanticCustomError("base64", "it is not base64") from error


def _our_name(value: Any) -> Any:
    return (scheduler_named(value) or value) if isinstance(value, str) else value


# The file of a picture: base64 in JSON, bytes from code.
PictureBytes = Annotated[
    bytes,
    BeforeValidator(_decoded),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class LoraRequest(_Part):
    """One LoRA on the model."""

    name: str = Field(pattern=ADDON_NAME_PATTERN, description="Name of its file, see GET /models.")
    weight: float = Field(default=1.0, ge=-LORA_WEIGHT_MAX, le=LORA_WEIGHT_MAX)


class ControlNetRequest(_Part):
    """One ControlNet beside the model, with the picture that it follows."""

    name: str = Field(
        pattern=ADDON_NAME_PATTERN, description="Name of its folder or file, see GET /controlnets."
    )
    image: PictureBytes = Field(
        description="A map as the ControlNet was trained on, such as edges or depth (PNG, JPEG or "
        "WebP in base64), in the shape of the picture; nothing here makes one of a photograph."
    )
    scale: float = Field(
        default=1.0, ge=0.0, le=CONTROL_SCALE_MAX, description="How strongly it is followed."
    )
    start: Share = Field(default=0.0, description="Of the denoising steps, where it begins.")
    end: Share = Field(default=1.0, description="And where it ends.")


class HiresRequest(_Part):
    """A second pass at a larger size, from the upscaled latents of the first.

    The size is ``scale`` times that of the first pass, or ``width`` and ``height``.
    """

    scale: float | None = Field(default=None, ge=1.0, le=HIRES_SCALE_MAX)
    width: Side | None = Field(default=None, description="Pixels, a multiple of 8.")
    height: Side | None = Field(default=None, description="Pixels, a multiple of 8.")
    num_inference_steps: Steps | None = Field(
        default=None, description="Of the second pass; those of the first if left out."
    )
    strength: Strength = Field(default=0.7, description="How much of it is drawn anew.")


class GenerationRequest(_Part):
    """The body of ``POST /generate``. A field left out takes the model's own default."""

    prompt: str = Field(
        min_length=1,
        max_length=PROMPT_MAX_CHARS,
        pattern=r"\S",
        description="What the picture shows. <lora:NAME:WEIGHT> in it adds to loras.",
    )
    negative_prompt: str = Field(
        default="", max_length=PROMPT_MAX_CHARS, description="What it should not show."
    )
    width: Side | None = Field(default=None, description="Pixels, a multiple of 8.")
    height: Side | None = Field(default=None, description="Pixels, a multiple of 8.")
    num_inference_steps: Steps | None = Field(default=None, description="Denoising steps.")
    guidance_scale: float | None = Field(
        default=None,
        ge=0.0,
        le=GUIDANCE_MAX,
        description="Pull towards the prompt; 1 or less switches guidance off.",
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        le=SEED_MAX,
        description="Seed of the first picture; picture i uses seed + i. Random if left out.",
    )
    scheduler: Annotated[SchedulerName, BeforeValidator(_our_name)] | None = Field(
        default=None, description="Sampling method; A1111's names are understood too."
    )
    num_images: int = Field(default=1, ge=1, le=NUM_IMAGES_MAX, description="Pictures per job.")
    model: str | None = Field(
        default=None, pattern=MODEL_ID_PATTERN, description="Model id, see GET /models."
    )
    format: PictureFormat | None = Field(
        default=None, description="File format; the Accept header decides if left out."
    )
    image: PictureBytes | None = Field(
        default=None,
        description="A picture to start from (PNG, JPEG or WebP in base64); it gives the size "
        "where width and height are left out.",
    )
    mask: PictureBytes | None = Field(
        default=None,
        description="Of the size of image; what is white in it is drawn anew, the rest is kept.",
    )
    strength: Strength | None = Field(
        default=None, description="How much of image is drawn anew; 0.8 if left out."
    )
    hires: HiresRequest | None = Field(default=None, description="A second, larger pass.")
    loras: list[LoraRequest] = Field(default=[], max_length=LORAS_MAX)
    controlnets: list[ControlNetRequest] = Field(
        default=[],
        max_length=CONTROLNETS_MAX,
        description="Their effects add up. Without image, width and height the first one's image "
        "gives the size.",
    )
    embeddings: list[str] = Field(
        default=[],
        max_length=EMBEDDINGS_MAX,
        description="Textual inversions that the texts have to name. They are found there without "
        "this; what is listed and is not there, or in neither text, is refused.",
    )
    clip_skip: int = Field(
        default=1,
        ge=1,
        le=CLIP_SKIP_MAX,
        description="Layer of the text encoder, from its end: 1 is what the model was made with.",
    )
    prompt_syntax: PromptSyntax = Field(
        default="plain",
        description="weighted: (word:1.2), [word] and BREAK as in A1111, and texts of any length.",
    )


# Fields that a request and a job did not have at first, and what says nothing in them. That is left
# out of what is stored and compared, so that stored jobs, keys and pictures keep their meaning.
_LATER_FIELDS: dict[str, tuple[Any, ...]] = {
    "image": (None,),
    "mask": (None,),
    "strength": (None,),
    "hires": (None,),
    "loras": ([], ()),
    "clip_skip": (1,),
    "prompt_syntax": ("plain",),
    "embeddings": ([], ()),
    "controlnets": ([], ()),
}


def says_nothing(name: str, value: Any) -> bool:
    """Whether a later field is as if it were not there."""
    return value in _LATER_FIELDS.get(name, ())


@dataclass(frozen=True)
class LoraUse:
    """A LoRA and how strongly it works."""

    name: str
    weight: float


@dataclass(frozen=True)
class ControlNetUse:
    """A ControlNet at work.

    Attributes:
        image: SHA-256 of the stored picture that it follows.
        start, end: share of a pass's steps from which and up to which it is followed.
    """

    name: str
    image: str
    scale: float
    start: float
    end: float


@dataclass(frozen=True)
class HiresPass:
    """The second pass: its size in px, its steps and how much of it is drawn anew."""

    width: int
    height: int
    num_inference_steps: int
    strength: float


def steps_run(num_inference_steps: int, strength: float | None) -> int:
    """Of a schedule, the steps that a picture to start from leaves to do."""
    return num_inference_steps if strength is None else int(num_inference_steps * strength)


@dataclass(frozen=True)
class GenerationParameters:
    """A request with every choice made: what a job runs with, and what its picture records.

    Attributes:
        image, mask: SHA-256 of the stored pictures.
        embeddings: names in the texts that stand for textual inversions.
    """

    prompt: str
    negative_prompt: str
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    seed: int
    scheduler: str
    num_images: int
    model: str
    format: PictureFormat
    image: str | None = None
    mask: str | None = None
    strength: float | None = None
    hires: HiresPass | None = None
    loras: tuple[LoraUse, ...] = ()
    clip_skip: int = 1
    prompt_syntax: PromptSyntax = "plain"
    embeddings: tuple[str, ...] = ()
    controlnets: tuple[ControlNetUse, ...] = ()

    @property
    def guided(self) -> bool:
        """Whether a second, unconditional row runs beside each picture's row."""
        return self.guidance_scale > 1.0

    @property
    def inputs(self) -> tuple[str, ...]:
        """Digests of the stored pictures that it is made from."""
        return tuple(input_digests(self.as_dict()))

    @property
    def total_steps(self) -> int:
        """Denoising steps of one picture, both passes together."""
        first = steps_run(self.num_inference_steps, self.strength)
        if self.hires is None:
            return first
        return first + steps_run(self.hires.num_inference_steps, self.hires.strength)

    @property
    def largest_size(self) -> tuple[int, int]:
        """Width and height of the largest pass, in px."""
        if self.hires is None:
            return self.width, self.height
        return max(self.width, self.hires.width), max(self.height, self.hires.height)

    def picture_seed(self, index: int) -> int:
        """The seed of picture ``index`` of this job."""
        return (self.seed + index) % (SEED_MAX + 1)

    def as_dict(self) -> dict[str, Any]:
        said = asdict(self)
        return {name: value for name, value in said.items() if not says_nothing(name, value)}

    @classmethod
    def from_dict(cls, said: dict[str, Any]) -> Self:
        """Raises KeyError or TypeError on anything ``as_dict`` did not give."""
        known = {field.name for field in fields(cls)}
        if foreign := set(said) - known:
            raise TypeError(f"parameters that this version does not know: {sorted(foreign)}")
        given = dict(said)
        if given.get("hires") is not None:
            given["hires"] = HiresPass(**given["hires"])
        given["loras"] = tuple(LoraUse(**each) for each in given.get("loras", ()))
        given["controlnets"] = tuple(ControlNetUse(**each) for each in given.get("controlnets", ()))
        given["embeddings"] = tuple(given.get("embeddings", ()))
        return cls(**given)


def input_digests(said: Mapping[str, Any]) -> Iterator[str]:
    """Of the stored pictures that parameters, as ``as_dict`` gave them, name."""
    for part in (said, *said.get("controlnets", ())):
        for name in ("image", "mask"):
            if part.get(name) is not None:
                yield part[name]
