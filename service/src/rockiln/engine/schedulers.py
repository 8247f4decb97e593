"""Schedulers by their names in a request, built from the model's own scheduler config."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_ancestral_discrete import (
    EulerAncestralDiscreteScheduler,
)
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.sampling import FLOW_SCHEDULERS


@dataclass(frozen=True)
class _Recipe:
    """A class, and what its name in a request fixes whatever the model's config says."""

    kind: Any
    fixed: dict[str, Any] = field(default_factory=dict)


_DPMPP_2M = {"algorithm_type": "dpmsolver++", "solver_order": 2}
_RECIPES: dict[str, _Recipe] = {
    "dpmpp_2m": _Recipe(DPMSolverMultistepScheduler, {**_DPMPP_2M, "use_karras_sigmas": False}),
    "dpmpp_2m_karras": _Recipe(
        DPMSolverMultistepScheduler, {**_DPMPP_2M, "use_karras_sigmas": True}
    ),
    "ddim": _Recipe(DDIMScheduler),
    "euler": _Recipe(EulerDiscreteScheduler),
    "euler_ancestral": _Recipe(EulerAncestralDiscreteScheduler),
    "unipc": _Recipe(UniPCMultistepScheduler),
    "flow_euler": _Recipe(FlowMatchEulerDiscreteScheduler),
}
# Configs of early checkpoints leave these out or have them wrong; the reference pipeline corrects
# them on loading in the same way.
_CORRECTIONS = {"steps_offset": 1, "clip_sample": False}


def make_scheduler(name: str, config: dict[str, Any]) -> Any:
    """A fresh scheduler object; it keeps the state of one row.

    Args:
        name: one of ``domain.sampling.SCHEDULER_NAMES``.
        config: the model's ``scheduler_config.json``.

    Raises:
        BrokenModelError: the config has values that the scheduler does not take.
    """
    recipe = _RECIPES[name]
    try:
        corrections = {} if name in FLOW_SCHEDULERS else _CORRECTIONS
        return recipe.kind.from_config({**config, **corrections}, **recipe.fixed)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise BrokenModelError(f"scheduler_config.json with {name}: {error}") from error


def noise_scale(scheduler: Any) -> float | torch.Tensor:
    """Of the first latents; a flow starts from plain noise and its schedulers do not say so."""
    scale: float | torch.Tensor = getattr(scheduler, "init_noise_sigma", 1.0)
    return scale


def scale_model_input(
    scheduler: Any, latents: torch.Tensor, timestep: torch.Tensor
) -> torch.Tensor:
    """Latents as the network wants them; those of a flow are so already."""
    if not hasattr(scheduler, "scale_model_input"):
        return latents
    scaled: torch.Tensor = scheduler.scale_model_input(latents, timestep)
    return scaled


def takes_generator(scheduler: Any) -> bool:
    """Whether the scheduler's ``step`` may draw noise and takes the source to draw it from."""
    return "generator" in _step_parameters(type(scheduler).step)


@cache
def _step_parameters(step: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(step).parameters)
