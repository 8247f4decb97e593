"""What is known of a model and a device before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from rockiln.domain.errors import InvalidRequestError
from rockiln.domain.request import GenerationParameters, GenerationRequest, PictureFormat


@dataclass(frozen=True)
class ModelDefaults:
    """What a request gets where it names nothing."""

    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    scheduler: str


@dataclass(frozen=True)
class ModelProfile:
    """A model folder as the registry reads it.

    Attributes:
        family: key of ``engine.families`` ("sd1").
        component_bytes: size on disk of each weight-bearing component.
        component_parameters: how many numbers each of them holds.
        min_side_px, max_side_px: sides the model was made for.
    """

    id: str
    title: str
    family: str
    licence: str
    path: str
    defaults: ModelDefaults
    min_side_px: int
    max_side_px: int
    component_bytes: dict[str, int]
    component_parameters: dict[str, int] = field(default_factory=dict)

    @property
    def weights_bytes(self) -> int:
        return sum(self.component_bytes.values())

    def loaded_bytes(self, item_bytes: int) -> dict[str, int]:
        """Memory of each component at ``item_bytes`` a number; the size on disk where unknown."""
        return {
            name: self.component_parameters[name] * item_bytes
            if name in self.component_parameters
            else size_bytes
            for name, size_bytes in self.component_bytes.items()
        }

    def resolve(
        self, request: GenerationRequest, *, seed: int, picture_format: PictureFormat
    ) -> GenerationParameters:
        """Makes every choice the request left open; refuses sides this model cannot draw.

        Raises:
            InvalidRequestError: a side is outside this model's limits. Nothing is clamped.
        """
        width = request.width if request.width is not None else self.defaults.width
        height = request.height if request.height is not None else self.defaults.height
        errors: list[dict[str, Any]] = [
            {
                "field": field,
                "message": f"{side} px is outside what model {self.id} draws",
                "limit": {"min": self.min_side_px, "max": self.max_side_px},
                "hint": f"use {self.min_side_px} to {self.max_side_px} px",
            }
            for field, side in (("width", width), ("height", height))
            if not self.min_side_px <= side <= self.max_side_px
        ]
        if errors:
            raise InvalidRequestError(str(errors[0]["message"]), errors=errors)
        defaults = self.defaults
        return GenerationParameters(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            width=width,
            height=height,
            num_inference_steps=(
                defaults.num_inference_steps
                if request.num_inference_steps is None
                else request.num_inference_steps
            ),
            guidance_scale=(
                defaults.guidance_scale
                if request.guidance_scale is None
                else request.guidance_scale
            ),
            seed=seed if request.seed is None else request.seed,
            scheduler=defaults.scheduler if request.scheduler is None else request.scheduler,
            num_images=request.num_images,
            model=self.id,
            format=picture_format,
        )


@dataclass(frozen=True)
class DeviceFacts:
    """The device an engine child found.

    Attributes:
        kind: "gpu" whatever the vendor, or "cpu".
        total_bytes: memory of the device; of the host for a CPU.
        threads: CPU threads torch uses.
    """

    kind: Literal["cpu", "gpu"]
    name: str
    total_bytes: int
    threads: int
