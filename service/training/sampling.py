"""Pictures from the model folder, through the reference pipeline and at its default settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor


def load_pipeline(
    folder: Path, device: torch.device, dtype: torch.dtype = torch.float32
) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=dtype, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def default_settings(folder: Path) -> dict[str, Any]:
    """The ``defaults`` of the folder's rockiln.json."""
    settings: dict[str, Any] = json.loads((folder / "rockiln.json").read_text())["defaults"]
    return settings


def initial_latents(seeds: list[int], height: int, width: int) -> Tensor:
    """Standard normal noise [B,4,H/8,W/8], drawn on the CPU so that a seed means the same
    everywhere.
    """
    shape = (1, 4, height // 8, width // 8)
    return torch.cat(
        [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )


def generate(
    pipeline: StableDiffusionPipeline,
    prompts: list[str],
    seeds: list[int],
    settings: dict[str, Any],
    batch: int = 32,
) -> Tensor:
    """[B,3,H,W] in 0..1 on the CPU; picture i has prompt i and seed i."""
    parts = []
    for first in range(0, len(prompts), batch):
        latents = initial_latents(
            seeds[first : first + batch], settings["height"], settings["width"]
        )
        result = pipeline(
            prompts[first : first + batch],
            num_inference_steps=settings["num_inference_steps"],
            guidance_scale=settings["guidance_scale"],
            height=settings["height"],
            width=settings["width"],
            latents=latents.to(pipeline.device, pipeline.unet.dtype),
            output_type="np",
        )
        parts.append(torch.from_numpy(np.asarray(result.images)).permute(0, 3, 1, 2))
    return torch.cat(parts)
