"""The denoising loop. A row is one picture in the making; a batch is any rows that fit together.

Rows may differ in scheduler, steps, position, guidance, seed and prompt. They share a forward when
the network and every tensor shape are the same, and they join or leave between two forwards.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from rockiln.engine.controls import Control, control_conditioning
from rockiln.engine.families.interface import Conditioning, Predict, classifier_free
from rockiln.engine.schedulers import clean_estimate, scale_model_input, takes_generator


@dataclass(eq=False)
class Row:
    """One picture in the making.

    Attributes:
        form: what else must be equal to share a forward: the network and its policies.
        latents: [1, C, h, w], at the noise level of ``position``.
        scheduler: this row's own object, timesteps set.
        conditioning, negative: one sample each; no ``negative`` means no guidance.
        guide: as the family does it.
        generator: the row's noise, also for schedulers that draw more on the way.
        max_batch_rows: how many rows may share a forward with it, itself included.
        on_step: called after each step; ``position`` then counts it.
        begin: place of the first timestep that is done; those before were left out.
        controls: what ControlNets follow in it, one for each of them.
        after_step: changes the latents after each step of the scheduler.
        position: evaluations done; a scheduler of order 2 needs two for most steps.
        widest_batch_rows: rows in the widest forward so far; 1 means always alone.
        estimate: clean latents by the last prediction, for a preview.
    """

    form: Hashable
    latents: torch.Tensor
    scheduler: Any
    conditioning: Conditioning
    negative: Conditioning | None
    guidance_scale: float
    generator: torch.Generator
    max_batch_rows: int = 1
    on_step: list[Callable[[Row], None]] = field(default_factory=list)
    guide: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor] = classifier_free
    begin: int = 0
    controls: tuple[Control, ...] = ()
    after_step: Callable[[Row], None] | None = None
    position: int = 0
    widest_batch_rows: int = 0
    estimate: Callable[[], torch.Tensor] | None = None

    @property
    def evaluations(self) -> int:
        return len(self.scheduler.timesteps) - self.begin

    @property
    def steps_done(self) -> int:
        order = int(self.scheduler.order)
        return (self.position + order - 1) // order

    @property
    def finished(self) -> bool:
        return self.position >= self.evaluations

    @property
    def timestep(self) -> torch.Tensor:
        """Of the next step, 0-dimensional, in the scheduler's own dtype."""
        timestep: torch.Tensor = self.scheduler.timesteps[self.begin + self.position]
        return timestep

    def batch_key(self) -> Hashable:
        shapes = tuple((name, tensor.shape) for name, tensor in sorted(self.conditioning.items()))
        return (self.form, self.latents.shape, self.latents.dtype, shapes, self.max_batch_rows)

    def scaled_latents(self) -> torch.Tensor:
        """The latents as the network wants them at this timestep."""
        return scale_model_input(self.scheduler, self.latents, self.timestep)

    def controls_now(self) -> list[tuple[Control, float]]:
        """Each with its scale at this step."""
        at = (self.position, self.evaluations)
        return [(control, control.scale_at(*at)) for control in self.controls]

    def advance(self, prediction: torch.Tensor) -> None:
        """One step of the row's scheduler with its prediction [1, C, h, w]."""
        options = {"generator": self.generator} if takes_generator(self.scheduler) else {}
        latents, timestep = self.latents, self.timestep
        outcome = self.scheduler.step(prediction, timestep, latents, return_dict=False, **options)
        self.latents = outcome[0]
        self.estimate = partial(
            clean_estimate, self.scheduler, outcome, prediction, latents, timestep
        )
        self.position += 1
        if self.after_step is not None:
            self.after_step(self)


def next_batch(rows: Sequence[Row]) -> list[Row]:
    """The rows of the next forward: the first row and those that fit it, in order.

    The first row is never passed over, so none waits for ever behind rows of another shape.
    """
    leader = rows[0]
    key = leader.batch_key()
    return [row for row in rows if row.batch_key() == key][: leader.max_batch_rows]


def denoise_step(rows: Sequence[Row], predict: Predict) -> None:
    """One forward for all rows, then one scheduler step for each.

    Samples are ordered as in the reference pipeline: all unconditional ones, then all conditional
    ones, so that a row alone computes the very same numbers.
    """
    guided = [row for row in rows if row.negative is not None]
    samples = [*guided, *rows]
    scaled = {id(row): row.scaled_latents() for row in rows}
    prediction = predict(
        torch.cat([scaled[id(row)] for row in samples]),
        torch.stack([row.timestep for row in samples]).to(torch.float32),
        _concatenate(
            [
                *(row.negative for row in guided if row.negative is not None),
                *(row.conditioning for row in rows),
            ]
        )
        | control_conditioning([row.controls_now() for row in samples]),
    )
    parts = torch.split(prediction, 1)
    unconditional = dict(zip(map(id, guided), parts, strict=False))
    for row, conditional in zip(rows, parts[len(guided) :], strict=True):
        base = unconditional.get(id(row))
        row.advance(
            conditional if base is None else row.guide(conditional, base, row.guidance_scale)
        )
        row.widest_batch_rows = max(row.widest_batch_rows, len(rows))
    for row in rows:
        for callback in row.on_step:
            callback(row)


def one_by_one(predict: Predict) -> Predict:
    """``predict`` with one sample per forward: the least memory a step can take."""

    def split(
        latents: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        return torch.cat(
            [
                predict(
                    latents[place : place + 1],
                    timesteps[place : place + 1],
                    {name: tensor[place : place + 1] for name, tensor in conditioning.items()},
                )
                for place in range(latents.shape[0])
            ]
        )

    return split


def _concatenate(samples: Iterable[Conditioning]) -> Conditioning:
    collected = list(samples)
    return {
        name: torch.cat([sample[name] for sample in collected]) for name in sorted(collected[0])
    }
