"""What a client may ask for, and what a job finally runs with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

PictureFormat = Literal["png", "jpeg", "webp"]
DiffusionScheduler = Literal[
    "dpmpp_2m", "dpmpp_2m_karras", "ddim", "euler", "euler_ancestral", "unipc"
]
FlowScheduler = Literal["flow_euler"]
SchedulerName = Literal[DiffusionScheduler, FlowScheduler]
# Which of them a model takes depends on what its network predicts: noise, or a flow.
DIFFUSION_SCHEDULERS: tuple[str, ...] = get_args(DiffusionScheduler)
FLOW_SCHEDULERS: tuple[str, ...] = get_args(FlowScheduler)
SCHEDULER_NAMES = DIFFUSION_SCHEDULERS + FLOW_SCHEDULERS

PROMPT_MAX_CHARS = 10_000
SEED_MAX = 2**32 - 1
STEPS_MAX = 150
GUIDANCE_MAX = 30.0
NUM_IMAGES_MAX = 8
SIDE_GRID_PX = 8
SIDE_MIN_PX = 64
SIDE_MAX_PX = 2048

Side = Annotated[int, Field(ge=SIDE_MIN_PX, le=SIDE_MAX_PX, multiple_of=SIDE_GRID_PX)]
MODEL_ID_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"


class GenerationRequest(BaseModel):
    """The body of ``POST /generate``. A field left out takes the model's own default."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    prompt: str = Field(
        min_length=1,
        max_length=PROMPT_MAX_CHARS,
        pattern=r"\S",
        description="What the picture shows.",
    )
    negative_prompt: str = Field(
        default="", max_length=PROMPT_MAX_CHARS, description="What it should not show."
    )
    width: Side | None = Field(default=None, description="Pixels, a multiple of 8.")
    height: Side | None = Field(default=None, description="Pixels, a multiple of 8.")
    num_inference_steps: int | None = Field(
        default=None, ge=1, le=STEPS_MAX, description="Denoising steps."
    )
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
    scheduler: SchedulerName | None = Field(default=None, description="Sampling method.")
    num_images: int = Field(default=1, ge=1, le=NUM_IMAGES_MAX, description="Pictures per job.")
    model: str | None = Field(
        default=None, pattern=MODEL_ID_PATTERN, description="Model id, see GET /models."
    )
    format: PictureFormat | None = Field(
        default=None, description="File format; the Accept header decides if left out."
    )


@dataclass(frozen=True)
class GenerationParameters:
    """A request with every choice made: what a job runs with, and what its picture records."""

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

    @property
    def guided(self) -> bool:
        """Whether a second, unconditional row runs beside each picture's row."""
        return self.guidance_scale > 1.0

    def picture_seed(self, index: int) -> int:
        """The seed of picture ``index`` of this job."""
        return (self.seed + index) % (SEED_MAX + 1)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
