"""How a family asks its scheduler for the timesteps of a picture."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_flow_match_heun_discrete import (
    FlowMatchHeunDiscreteScheduler,
)

from rockiln.engine.families.interface import Components
from rockiln.engine.families.latents import grid_px_of


def by_steps(components: Components, scheduler: Any, steps: int, width: int, height: int) -> None:
    """The scheduler's own spacing; the size of the picture does not matter."""
    del width, height
    scheduler.set_timesteps(steps, device=components.device)


def size_shift(config: dict[str, Any], tokens: int, max_shift: float) -> float:
    """How far a flow's timesteps move towards noise for a picture of ``tokens`` patches.

    A straight line through two points of the scheduler's config, as in the reference pipelines.
    """
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    base, most = config.get("base_shift", 0.5), config.get("max_shift", max_shift)
    slope = (most - base) / (high - low)
    return float(tokens * slope + (base - slope * low))


def picture_shift(
    components: Components, width: int, height: int, *, patch: int, most: float
) -> float | None:
    """``size_shift`` of a picture; None where the scheduler's config does not ask for it.

    Args:
        patch: latents of a token along one side.
        most: where the config names none.
    """
    if not components.scheduler_config.get("use_dynamic_shifting"):
        return None
    patch_px = grid_px_of(components.modules["vae"]) * patch
    tokens = (height // patch_px) * (width // patch_px)
    return size_shift(components.scheduler_config, tokens, most)


def set_flow_timesteps(
    scheduler: Any, steps: int, device: torch.device, *, mu: float | None, **options: Any
) -> None:
    """Of a flow.

    Args:
        mu: how far the timesteps move; None leaves that to the scheduler's config.
        options: of a scheduler that can be told its sigmas; Heun's has its own.
    """
    if not isinstance(scheduler, FlowMatchHeunDiscreteScheduler):
        given = options if mu is None else {"mu": mu, **options}
        if steps == 1:  # there is nothing between first and last that could be stretched
            scheduler.register_to_config(shift_terminal=None)
        if "sigmas" not in given:
            given["num_inference_steps"] = steps
        scheduler.set_timesteps(device=device, **given)
        return
    if mu is not None:
        scheduler.register_to_config(shift=math.exp(mu))
    scheduler.set_timesteps(steps, device=device)


def even_sigmas(steps: int) -> Any:
    """From 1 down to 1/steps, evenly."""
    return np.linspace(1.0, 1 / steps, steps)
