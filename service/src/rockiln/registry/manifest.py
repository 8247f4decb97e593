"""``rockiln.json``: what a model folder says of itself beyond its weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.model import Architecture, ModelDefaults, ModelProfile
from rockiln.domain.quantisation import AtLoad
from rockiln.domain.request import GUIDANCE_MAX, STEPS_MAX, Side
from rockiln.domain.sampling import FLOW_SCHEDULERS, SchedulerName
from rockiln.registry.file_gate import check_file
from rockiln.registry.layouts import FamilyLayout

MANIFEST_NAME = "rockiln.json"
_MANIFEST_MAX_BYTES = 64 * 1024


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Defaults(_Section):
    """What a request gets where it names nothing."""

    width: Side
    height: Side
    num_inference_steps: int = Field(ge=1, le=STEPS_MAX)
    guidance_scale: float = Field(ge=0.0, le=GUIDANCE_MAX)
    scheduler: SchedulerName

    def as_model_defaults(self) -> ModelDefaults:
        return ModelDefaults(**self.model_dump())


class Limits(_Section):
    """Sides the model was made for, in pixels."""

    min_side_px: Side
    max_side_px: Side


class SchedulerConfig(_Section):
    """What a model was trained on, in place of what its ``scheduler_config.json`` says.

    For single files, which have none, and for folders that have it wrong. Of diffusion, not flows.
    """

    prediction_type: Literal["epsilon", "v_prediction"] | None = None
    timestep_spacing: Literal["leading", "linspace", "trailing"] | None = None
    rescale_betas_zero_snr: bool | None = None


class Manifest(_Section):
    """The whole file. ``schema`` counts the shapes this file has had."""

    # "schema" itself is a method of pydantic's models.
    schema_number: Literal[1] = Field(alias="schema")
    title: str = Field(min_length=1, max_length=200)
    licence: str = Field(min_length=1, max_length=200)
    defaults: Defaults
    limits: Limits
    quantisation: dict[str, AtLoad] = Field(
        default={}, description="Part → what its weights are rounded to when they are loaded."
    )
    scheduler_config: SchedulerConfig = SchedulerConfig()

    @model_validator(mode="after")
    def _defaults_within_limits(self) -> Self:
        low, high = self.limits.min_side_px, self.limits.max_side_px
        if low > high:
            raise ValueError(f"limits: min_side_px {low} is above max_side_px {high}")
        for name in ("width", "height"):
            side = getattr(self.defaults, name)
            if not low <= side <= high:
                raise ValueError(f"defaults.{name} {side} is outside limits {low} to {high}")
        return self

    def applied_to(self, model: ModelProfile) -> ModelProfile:
        """What it says of a model, on it.

        Raises:
            BrokenModelError: it wants a part rounded that cannot be, or a flow sampled otherwise.
        """
        trained = self.scheduler_config.model_dump(exclude_none=True)
        if trained and set(model.schedulers) <= set(FLOW_SCHEDULERS):
            raise BrokenModelError(
                f"{MANIFEST_NAME}: scheduler_config.{min(trained)}: {model.family} models are flows"
            )
        for name in self.quantisation:
            if name not in model.quantisable:
                there = ", ".join(model.quantisable) or "none"
                raise BrokenModelError(
                    f"{MANIFEST_NAME}: quantisation.{name}: no such part can be rounded; these "
                    f"can: {there}"
                )
        said = replace(
            model,
            title=self.title,
            licence=self.licence,
            defaults=self.defaults.as_model_defaults(),
            min_side_px=self.limits.min_side_px,
            max_side_px=self.limits.max_side_px,
            scheduler_config=model.scheduler_config | trained,
        )
        return said.rounded(self.quantisation)


def profile_of(
    model_id: str,
    layout: FamilyLayout,
    manifest: Manifest,
    architecture: Architecture | None = None,
) -> ModelProfile:
    """What a family and a manifest say of a model; where it is and how large is not in it yet."""
    return ModelProfile(
        id=model_id,
        title=manifest.title,
        family=layout.name,
        licence=manifest.licence,
        path="",
        defaults=manifest.defaults.as_model_defaults(),
        min_side_px=manifest.limits.min_side_px,
        max_side_px=manifest.limits.max_side_px,
        component_bytes={},
        side_grid_px=layout.side_grid_px,
        schedulers=layout.schedulers,
        features=layout.features,
        architecture=architecture,
        half=layout.half,
    )


# A folder without a manifest is taken for a model of the usual kind of its family.
FAMILY_MANIFESTS: dict[str, Manifest] = {
    "sd1": Manifest(
        schema=1,
        title="Stable Diffusion 1.x or 2.x",
        licence="unknown",
        defaults=Defaults(
            width=512,
            height=512,
            num_inference_steps=25,
            guidance_scale=7.5,
            scheduler="dpmpp_2m",
        ),
        limits=Limits(min_side_px=256, max_side_px=1024),
    ),
    "sdxl": Manifest(
        schema=1,
        title="Stable Diffusion XL",
        licence="unknown",
        defaults=Defaults(
            width=1024,
            height=1024,
            num_inference_steps=30,
            guidance_scale=5.0,
            scheduler="euler",
        ),
        limits=Limits(min_side_px=512, max_side_px=2048),
    ),
    "sd3": Manifest(
        schema=1,
        title="Stable Diffusion 3",
        licence="unknown",
        defaults=Defaults(
            width=1024,
            height=1024,
            num_inference_steps=28,
            guidance_scale=7.0,
            scheduler="flow_euler",
        ),
        limits=Limits(min_side_px=256, max_side_px=1536),
    ),
    "flux": Manifest(
        schema=1,
        title="FLUX.1",
        licence="unknown",
        defaults=Defaults(
            width=1024,
            height=1024,
            num_inference_steps=28,
            guidance_scale=3.5,
            scheduler="flow_euler",
        ),
        limits=Limits(min_side_px=256, max_side_px=2048),
    ),
    "flux2": Manifest(
        schema=1,
        title="FLUX.2 klein",
        licence="unknown",
        defaults=Defaults(
            width=1024,
            height=1024,
            num_inference_steps=4,
            guidance_scale=1.0,
            scheduler="flow_euler",
        ),
        limits=Limits(min_side_px=256, max_side_px=2048),
    ),
    "z_image": Manifest(
        schema=1,
        title="Z-Image",
        licence="unknown",
        defaults=Defaults(
            width=1024,
            height=1024,
            num_inference_steps=9,
            guidance_scale=1.0,
            scheduler="flow_euler",
        ),
        limits=Limits(min_side_px=256, max_side_px=2048),
    ),
    "qwen_image": Manifest(
        schema=1,
        title="Qwen-Image",
        licence="unknown",
        defaults=Defaults(
            width=1328,
            height=1328,
            num_inference_steps=50,
            guidance_scale=4.0,
            scheduler="flow_euler",
        ),
        limits=Limits(min_side_px=256, max_side_px=2048),
    ),
}


def manifest_beside(path: Path, root: Path) -> Path:
    """Where the manifest of a single file is, or would be; one that is there passed the gate.

    Raises:
        BrokenModelError: it is no plain file in ``root``.
    """
    beside = path.with_name(f"{path.stem}.{MANIFEST_NAME}")
    if beside.is_file():
        check_file(beside, root)
    return beside


def read_manifest(path: Path, family: str, title: str) -> Manifest:
    """The manifest at ``path``; if there is none, the family's one with this title.

    Raises:
        BrokenModelError: the file is there and is not a manifest.
    """
    if not path.exists():
        return FAMILY_MANIFESTS[family].model_copy(update={"title": title})
    if path.stat().st_size > _MANIFEST_MAX_BYTES:
        raise BrokenModelError(f"{path.name} is larger than {_MANIFEST_MAX_BYTES} bytes")
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise BrokenModelError(f"{path.name}: {place}: {first['msg']}") from error
