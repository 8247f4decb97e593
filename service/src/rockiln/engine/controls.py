"""ControlNets at a step: the pictures that rows follow, and the residuals that come of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rockiln.domain.request import GenerationParameters
from rockiln.engine.families.interface import Components, Conditioning, Predict
from rockiln.engine.families.residuals import residual_conditioning
from rockiln.engine.start_picture import read_picture
from rockiln.store.artefacts import ArtefactStore

_PICTURE, _SCALE = "control_picture_", "control_scale_"
# What SDXL's networks are told beside the text.
_ADDED = ("text_embeds", "time_ids")


@dataclass(frozen=True)
class Control:
    """A picture that a row follows.

    Attributes:
        picture: [1, 3, H, W] in 0..1, of the pass's size.
        start, end: share of the row's evaluations from which and up to which it counts.
    """

    picture: torch.Tensor
    scale: float
    start: float
    end: float

    def scale_at(self, position: int, evaluations: int) -> float:
        """Of one evaluation; 0 outside of its share, as the reference has it."""
        outside = position / evaluations < self.start or (position + 1) / evaluations > self.end
        return 0.0 if outside else self.scale


def controls_of(
    parameters: GenerationParameters,
    size: tuple[int, int],
    artefacts: ArtefactStore,
    components: Components,
) -> tuple[Control, ...]:
    """For a pass of that width and height, in the order of a job's ControlNets; resized (Lanczos).

    Raises:
        InvalidRequestError: a stored file is gone or cannot be read.
    """
    controls = []
    for use in parameters.controlnets:
        pixels = read_picture(artefacts.input_path(use.image), "RGB", *size)
        picture = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255.0
        picture = picture.contiguous().to(components.device, components.dtype)
        controls.append(Control(picture, use.scale, use.start, use.end))
    return tuple(controls)


def control_conditioning(samples: Sequence[Sequence[tuple[Control, float]]]) -> Conditioning:
    """Of the samples of a forward, each with its controls and their scales at this step.

    A control that counts for no sample is left out.
    """
    conditioning: Conditioning = {}
    for place, column in enumerate(zip(*samples, strict=True)):
        scales = [scale for _, scale in column]
        if any(scales):
            pictures = torch.cat([control.picture for control, _ in column])
            conditioning[f"{_PICTURE}{place}"] = pictures
            conditioning[f"{_SCALE}{place}"] = pictures.new_tensor(scales).view(-1, 1, 1, 1)
    return conditioning


def steered(predict: Predict, controlnets: Sequence[Any]) -> Predict:
    """``predict`` with the residuals of the ControlNets, which follow their controls in order."""

    def predict_steered(
        latents: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        plain = {
            name: tensor
            for name, tensor in conditioning.items()
            if not name.startswith((_PICTURE, _SCALE))
        }
        added = {name: plain[name] for name in _ADDED if name in plain}
        total: list[torch.Tensor] = []
        for place, controlnet in enumerate(controlnets):
            if f"{_PICTURE}{place}" not in conditioning:
                continue
            down, middle = controlnet(
                latents,
                timesteps,
                encoder_hidden_states=plain["prompt_embeds"],
                controlnet_cond=conditioning[f"{_PICTURE}{place}"],
                conditioning_scale=conditioning[f"{_SCALE}{place}"],
                added_cond_kwargs=added,
                return_dict=False,
            )
            total = _added(total, [*down, middle])
            del down, middle  # nothing of it is left beside the next forward
        return predict(latents, timesteps, plain | residual_conditioning(total))

    return predict_steered


def _added(total: list[torch.Tensor], found: list[torch.Tensor]) -> list[torch.Tensor]:
    """``found`` where it is the first; else added to what is there, in place."""
    for residual, more in zip(total, found, strict=False):
        residual.add_(more)
    return total or found
