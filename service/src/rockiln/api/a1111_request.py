"""A1111's image requests in the words of ``POST /generate``."""

from __future__ import annotations

from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field

from rockiln.api.a1111_controlnet import controlnets_of
from rockiln.api.a1111_options import model_named
from rockiln.api.body import read_json_object
from rockiln.api.calls import Wanted
from rockiln.api.problems import ProblemError
from rockiln.api.services import services
from rockiln.api.validation import validate
from rockiln.domain.errors import InvalidRequestError
from rockiln.domain.request import NUM_IMAGES_MAX, PictureBytes
from rockiln.domain.sampling import scheduler_named

# "Any" in the older clients' words.
_NO_SCRIPT = (None, "", "None")
_Count = Annotated[int, Field(ge=1, le=NUM_IMAGES_MAX)]


class Txt2ImgRequest(BaseModel):
    """The body of ``POST /sdapi/v1/txt2img``. What is not listed here is not looked at."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    prompt: str = ""
    negative_prompt: str | None = ""
    styles: list[str] | None = Field(default=None, description="None can be named here.")
    seed: int = Field(default=-1, description="-1 for a random one.")
    subseed_strength: float = Field(default=0.0, description="0: there are no variation seeds.")
    sampler_name: str | None = None
    sampler_index: str | None = Field(default=None, description="The older sampler_name.")
    scheduler: str | None = None
    batch_size: _Count = 1
    n_iter: _Count = 1
    steps: int | None = None
    cfg_scale: float | None = None
    width: int | None = None
    height: int | None = None
    restore_faces: bool | None = Field(default=None, description="False: it is not done.")
    tiling: bool | None = Field(default=None, description="False: it is not done.")
    denoising_strength: float | None = None
    override_settings: dict[str, Any] | None = Field(
        default=None, description="sd_model_checkpoint and CLIP_stop_at_last_layers are followed."
    )
    enable_hr: bool = False
    hr_scale: float = 2.0
    hr_second_pass_steps: int = 0
    hr_resize_x: int = 0
    hr_resize_y: int = 0
    refiner_checkpoint: str | None = Field(default=None, description="None: there is none.")
    script_name: str | None = Field(default=None, description="None: there are no scripts.")
    alwayson_scripts: dict[str, Any] | None = Field(
        default=None, description="controlnet with units in args; there is no other."
    )
    send_images: bool = True


class Img2ImgRequest(Txt2ImgRequest):
    """The body of ``POST /sdapi/v1/img2img``."""

    init_images: list[PictureBytes] = Field(min_length=1, max_length=1)
    mask: PictureBytes | None = Field(default=None, description="What is white is drawn anew.")
    inpainting_mask_invert: int | bool | None = Field(default=None, description="0 only.")
    include_init_images: bool | None = None


def read_a1111_request(model: type[Txt2ImgRequest]) -> Txt2ImgRequest:
    """The body of the request at hand. Raises InvalidRequestError, ProblemError."""
    given = validate(model, read_json_object())
    for field in ("restore_faces", "tiling", "styles", "refiner_checkpoint"):
        if getattr(given, field):
            _refuse(field, "it cannot be done here")
    if given.script_name not in _NO_SCRIPT:
        _refuse("script_name", "there are no scripts here")
    if given.subseed_strength:
        _refuse("subseed_strength", "there are no variation seeds here")
    return given


def wanted(given: Txt2ImgRequest) -> Wanted:
    """The request in our words. Raises InvalidRequestError, UnknownModelError, ProblemError."""
    override = given.override_settings or {}
    model = model_named(override.get("sd_model_checkpoint"))
    count = given.batch_size * given.n_iter
    if count > NUM_IMAGES_MAX:
        _refuse("n_iter", f"batch_size times n_iter is more than {NUM_IMAGES_MAX}")
    content: dict[str, Any] = {
        "prompt": given.prompt,
        "negative_prompt": given.negative_prompt,
        "model": model,
        "num_images": count,
        "seed": None if given.seed == -1 else given.seed,
        "num_inference_steps": given.steps,
        "guidance_scale": given.cfg_scale,
        "width": given.width,
        "height": given.height,
        "scheduler": _scheduler(given, model),
        "clip_skip": override.get("CLIP_stop_at_last_layers"),
        **_weighted(model),
    }
    if given.enable_hr:
        size: dict[str, Any] = {"width": given.hr_resize_x or None}
        size["height"] = given.hr_resize_y or None
        if None in size.values():
            size = {"scale": given.hr_scale}
        steps = {"num_inference_steps": given.hr_second_pass_steps or None}
        strength = {"strength": given.denoising_strength}
        content["hires"] = _said({**size, **steps, **strength})
    start = given.init_images[0] if isinstance(given, Img2ImgRequest) else None
    content["controlnets"] = controlnets_of(given.alwayson_scripts, start) or None
    if isinstance(given, Img2ImgRequest):
        if given.inpainting_mask_invert:
            _refuse("inpainting_mask_invert", "send the mask as it is meant")
        content |= {
            "image": start,
            "mask": given.mask,
            "strength": 0.75 if given.denoising_strength is None else given.denoising_strength,
        }
    return Wanted(_said(content))


def _said(content: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if value is not None}


def _weighted(model: str | None) -> dict[str, str]:
    """A1111's prompts are weighted; a model that does not take that gets them as they are."""
    profile = services().catalogue.models.get(model or "")
    takes = profile is not None and "weighted_prompt" in profile.features
    return {"prompt_syntax": "weighted"} if takes else {}


def _scheduler(given: Txt2ImgRequest, model: str | None) -> str | None:
    spoken = given.sampler_name or given.sampler_index
    if not spoken:
        return None
    name = scheduler_named(spoken, given.scheduler)
    if name is None:
        raise ProblemError("bad-request", "Sampler not found", hint="GET /sdapi/v1/samplers")
    profile = services().catalogue.models.get(model or "")
    if profile is not None and name not in profile.schedulers:
        flow = f"flow_{name}"  # the same method, for networks that predict a flow
        return flow if flow in profile.schedulers else name
    return name


def _refuse(field: str, message: str) -> NoReturn:
    raise InvalidRequestError(
        f"{field}: {message}", errors=[{"field": field, "message": message, "hint": None}]
    )
