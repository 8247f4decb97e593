"""How a family asks its scheduler for the timesteps of a picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from rockiln.engine.families.interface import Components


def by_steps(components: Components, scheduler: Any, steps: int, width: int, height: int) -> None:
    """The scheduler's own spacing; the size of the picture does not matter."""
    del width, height
    scheduler.set_timesteps(steps, device=components.device)


def size_shift(scheduler: Any, tokens: int, max_shift: float) -> float:
    """How far a flow's timesteps move towards noise for a picture of ``tokens`` patches.

    A straight line through two points of the scheduler's config, as in the reference pipelines.
    """
    config = scheduler.config
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    base, most = config.get("base_shift", 0.5), config.get("max_shift", max_shift)
    slope = (most - base) / (high - low)
    return float(tokens * slope + (base - slope * low))


def even_sigmas(steps: int) -> Any:
    """From 1 down to 1/steps, evenly."""
    return np.linspace(1.0, 1 / steps, steps)
