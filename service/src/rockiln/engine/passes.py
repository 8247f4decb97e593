"""Rows for the passes of a picture: from noise, from a picture, or from the pass before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from rockiln.domain.request import GenerationParameters, steps_run
from rockiln.engine.families.interface import Components, Family
from rockiln.engine.rows import Row
from rockiln.engine.schedulers import add_noise, begin_at, make_scheduler, noise_scale
from rockiln.engine.start_picture import StartPicture


@dataclass(frozen=True)
class Pass:
    """One run through the loop. Sides in px; ``strength`` None starts from noise alone."""

    width: int
    height: int
    num_inference_steps: int
    strength: float | None = None

    @property
    def steps(self) -> int:
        return steps_run(self.num_inference_steps, self.strength)


def passes_of(parameters: GenerationParameters) -> list[Pass]:
    """The first, and the larger one where it is asked for."""
    first = Pass(
        parameters.width, parameters.height, parameters.num_inference_steps, parameters.strength
    )
    hires = parameters.hires
    if hires is None:
        return [first]
    return [first, Pass(hires.width, hires.height, hires.num_inference_steps, hires.strength)]


@dataclass(frozen=True)
class Beginning:
    """Where a row starts: its scheduler, standing at timestep ``begin``, and what it holds."""

    scheduler: Any
    begin: int
    latents: torch.Tensor
    blend: Blend | None = None


@dataclass(frozen=True)
class Blend:
    """Puts back, after each step, what a mask keeps, at the noise level of the next step."""

    kept: torch.Tensor
    noise: torch.Tensor
    mask: torch.Tensor

    def __call__(self, row: Row) -> None:
        kept = self.kept
        if not row.finished:
            kept = add_noise(row.scheduler, kept, self.noise, row.timestep)
        row.latents = (1 - self.mask) * kept + self.mask * row.latents


class PassMaker:
    """Beginnings for one loaded model; noise is drawn on the CPU, by each picture's generator."""

    def __init__(self, family: Family, components: Components, scheduler: str) -> None:
        self._family = family
        self._components = components
        self._scheduler = scheduler

    def from_noise(self, work: Pass, generator: torch.Generator) -> Beginning:
        scheduler, begin = self._timesteps(work)
        noise = self._noise(work, generator, noise_scale(scheduler))
        return Beginning(scheduler, begin, noise)

    def from_picture(
        self, work: Pass, start: StartPicture, generator: torch.Generator
    ) -> Beginning:
        """The order of draws is the reference's: latents, noise, latents of what is masked."""
        scheduler, begin = self._timesteps(work)
        kept = self._family.sample(self._components, start.distribution, generator)
        noise = self._noise(work, generator)
        mask = start.mask_latents(kept.shape[-2:], self._family.mask_mode)
        if mask is None:
            return Beginning(scheduler, begin, self._noised(scheduler, begin, kept, noise))
        self._noise(work, generator)
        latents = (
            noise * noise_scale(scheduler)
            if work.strength == 1.0
            else self._noised(scheduler, begin, kept, noise)
        )
        return Beginning(scheduler, begin, latents, Blend(kept, noise, mask.to(kept)))

    def from_latents(
        self, work: Pass, latents: torch.Tensor, generator: torch.Generator
    ) -> Beginning:
        """From the latents of a smaller pass."""
        scheduler, begin = self._timesteps(work)
        noise = self._noise(work, generator)
        enlarged = self._family.enlarge(self._components, latents, *noise.shape[-2:])
        return Beginning(scheduler, begin, self._noised(scheduler, begin, enlarged, noise))

    def _timesteps(self, work: Pass) -> tuple[Any, int]:
        scheduler = make_scheduler(self._scheduler, self._components.scheduler_config)
        self._family.set_timesteps(
            self._components, scheduler, work.num_inference_steps, work.width, work.height
        )
        return scheduler, begin_at(scheduler, work.num_inference_steps - work.steps)

    def _noise(
        self, work: Pass, generator: torch.Generator, scale: float | torch.Tensor = 1.0
    ) -> torch.Tensor:
        return self._family.prepare_latents(
            self._components, work.width, work.height, generator, scale
        )

    @staticmethod
    def _noised(
        scheduler: Any, begin: int, latents: torch.Tensor, noise: torch.Tensor
    ) -> torch.Tensor:
        return add_noise(scheduler, latents, noise, scheduler.timesteps[begin])
