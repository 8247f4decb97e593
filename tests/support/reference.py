"""diffusers' pipelines, called with a job's parameters: what the engine's pictures must equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    UniPCMultistepScheduler,
)

from rockiln.domain.request import GenerationParameters

# Written out here and not taken from the engine: this is what the names promise.
REFERENCE_SCHEDULERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "dpmpp_2m": (DPMSolverMultistepScheduler, {}),
    "dpmpp_2m_karras": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "dpmpp_2m_sde": (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "dpmpp_2m_sde_karras": (
        DPMSolverMultistepScheduler,
        {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True},
    ),
    "dpmpp_sde": (DPMSolverSinglestepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "dpmpp_sde_karras": (
        DPMSolverSinglestepScheduler,
        {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True},
    ),
    "ddim": (DDIMScheduler, {}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler_karras": (EulerDiscreteScheduler, {"use_karras_sigmas": True}),
    "euler_ancestral": (EulerAncestralDiscreteScheduler, {}),
    "heun": (HeunDiscreteScheduler, {}),
    "unipc": (UniPCMultistepScheduler, {}),
    "lcm": (LCMScheduler, {}),
    "flow_euler": (FlowMatchEulerDiscreteScheduler, {}),
    "flow_heun": (FlowMatchHeunDiscreteScheduler, {}),
}


class Reference:
    """One pipeline of class ``kind`` over a model folder, with ``parts`` that are not in it."""

    def __init__(self, kind: Any, folder: Path, **parts: Any) -> None:
        self.pipeline = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False, **parts
        )
        self.pipeline.set_progress_bar_config(disable=True)
        self._scheduler_config = self.pipeline.scheduler.config

    def lay_out(self, memory_format: torch.memory_format) -> None:
        parts: dict[str, Any] = self.pipeline.components
        for name in ("unet", "vae", "text_encoder"):
            parts[name].to(memory_format=memory_format)

    def schedule(self, name: str) -> None:
        """A fresh scheduler of the model's config."""
        kind, options = REFERENCE_SCHEDULERS[name]
        self.pipeline.scheduler = kind.from_config(self._scheduler_config, **options)

    def draw(self, parameters: GenerationParameters) -> list[npt.NDArray[np.uint8]]:
        self.schedule(parameters.scheduler)
        generators = [
            torch.Generator("cpu").manual_seed(parameters.picture_seed(index))
            for index in range(parameters.num_images)
        ]
        images = self.pipeline(
            prompt=parameters.prompt,
            negative_prompt=parameters.negative_prompt or None,
            width=parameters.width,
            height=parameters.height,
            num_inference_steps=parameters.num_inference_steps,
            guidance_scale=parameters.guidance_scale,
            num_images_per_prompt=parameters.num_images,
            generator=generators,
            # FLUX's pipeline does not know the word.
            **({"clip_skip": parameters.clip_skip - 1} if parameters.clip_skip > 1 else {}),
        ).images
        return [np.asarray(image) for image in images]
