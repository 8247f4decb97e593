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
from diffusers.schedulers.scheduling_dpmsolver_singlestep import DPMSolverSinglestepScheduler
from diffusers.schedulers.scheduling_euler_ancestral_discrete import (
    EulerAncestralDiscreteScheduler,
)
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.schedulers.scheduling_flow_match_heun_discrete import (
    FlowMatchHeunDiscreteScheduler,
)
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.sampling import FLOW_SCHEDULERS, STEPS_LIMITS


@dataclass(frozen=True)
class _Recipe:
    """A class, and what its name in a request fixes whatever the model's config says."""

    kind: Any
    fixed: dict[str, Any] = field(default_factory=dict)


_ODE = {"algorithm_type": "dpmsolver++", "solver_order": 2, "use_karras_sigmas": False}
_SDE = {**_ODE, "algorithm_type": "sde-dpmsolver++"}
_KARRAS = {"use_karras_sigmas": True}
_RECIPES: dict[str, _Recipe] = {
    "dpmpp_2m": _Recipe(DPMSolverMultistepScheduler, _ODE),
    "dpmpp_2m_karras": _Recipe(DPMSolverMultistepScheduler, _ODE | _KARRAS),
    "dpmpp_2m_sde": _Recipe(DPMSolverMultistepScheduler, _SDE),
    "dpmpp_2m_sde_karras": _Recipe(DPMSolverMultistepScheduler, _SDE | _KARRAS),
    "dpmpp_sde": _Recipe(DPMSolverSinglestepScheduler, _SDE),
    "dpmpp_sde_karras": _Recipe(DPMSolverSinglestepScheduler, _SDE | _KARRAS),
    "ddim": _Recipe(DDIMScheduler),
    "euler": _Recipe(EulerDiscreteScheduler, {"use_karras_sigmas": False}),
    "euler_karras": _Recipe(EulerDiscreteScheduler, _KARRAS),
    "euler_ancestral": _Recipe(EulerAncestralDiscreteScheduler),
    "heun": _Recipe(HeunDiscreteScheduler, {"use_karras_sigmas": False}),
    "unipc": _Recipe(UniPCMultistepScheduler),
    "lcm": _Recipe(LCMScheduler, {"original_inference_steps": STEPS_LIMITS["lcm"]}),
    "flow_euler": _Recipe(FlowMatchEulerDiscreteScheduler),
    "flow_heun": _Recipe(FlowMatchHeunDiscreteScheduler),
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
        corrections: dict[str, Any] = {} if name in FLOW_SCHEDULERS else _CORRECTIONS
        if name == "flow_heun" and config.get("use_dynamic_shifting"):
            corrections = {"shift": 1.0}  # the picture's size sets it
        return recipe.kind.from_config({**config, **corrections}, **recipe.fixed)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise BrokenModelError(f"scheduler_config.json with {name}: {error}") from error


def noise_scale(scheduler: Any) -> float | torch.Tensor:
    """Of the first latents; a flow starts from plain noise and its schedulers do not say so."""
    scale: float | torch.Tensor = getattr(scheduler, "init_noise_sigma", 1.0)
    return scale


def begin_at(scheduler: Any, steps_left_out: int) -> int:
    """Leaves out the first steps; the place of the first timestep that is left."""
    begin = steps_left_out * int(scheduler.order)
    if begin and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    return begin


def add_noise(
    scheduler: Any, latents: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor
) -> torch.Tensor:
    """Clean latents [1, C, h, w] at the noise level of ``timestep``."""
    if hasattr(scheduler, "scale_noise"):
        noised: torch.Tensor = scheduler.scale_noise(latents, timestep[None], noise)
    else:
        noised = scheduler.add_noise(latents, noise, timestep[None])
    return noised.to(latents.dtype)


def clean_estimate(
    scheduler: Any,
    outcome: tuple[Any, ...],
    prediction: torch.Tensor,
    latents: torch.Tensor,
    timestep: torch.Tensor,
) -> torch.Tensor:
    """What the picture would be by the last prediction, as far as the scheduler tells.

    Args:
        outcome: of its ``step``.
        latents: that the prediction was made from.
    """
    if hasattr(scheduler, "scale_noise"):
        sigma = (timestep / scheduler.config.num_train_timesteps).to(latents)
        clean: torch.Tensor = latents - sigma * prediction
        return clean
    if len(outcome) > 1 and outcome[1] is not None:
        told: torch.Tensor = outcome[1]
        return told
    kept = getattr(scheduler, "model_outputs", None)
    if kept is not None and kept[-1] is not None:
        last: torch.Tensor = kept[-1]
        return last
    stepped: torch.Tensor = outcome[0]
    return stepped


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
