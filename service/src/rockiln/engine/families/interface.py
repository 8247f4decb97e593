"""What a family of models gives the engine: plain functions over its components."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from rockiln.domain.quantisation import NONE
from rockiln.domain.request import PromptSyntax

Stage = Literal["encode_prompt", "denoise", "decode"]
# Named tensors, each with the sample as first dimension, so that samples can be concatenated.
Conditioning = dict[str, torch.Tensor]
# Latents [B, C, h, w], timesteps float32 [B] and conditioning of B samples → [B, C, h, w].
Predict = Callable[[torch.Tensor, torch.Tensor, Conditioning], torch.Tensor]


@dataclass
class Components:
    """The loaded parts of one model.

    Attributes:
        modules: weight-bearing parts, in the order of the stages that use them.
        tokenizers: text → token ids.
        scheduler_config: the model's own, from which every scheduler is built.
        dtype: of weights, latents and conditioning.
        device: where the work is done (a module may rest elsewhere, see placement).
        zero_empty_negative: no negative text means zeros and not the encoding of nothing.
        unconditional_forward: whether guidance is the difference to a forward without the prompt;
            if not, it has been distilled away or the network is told the scale, and a negative
            prompt has no effect.
    """

    modules: dict[str, Any]
    tokenizers: dict[str, Any]
    scheduler_config: dict[str, Any]
    dtype: torch.dtype
    device: torch.device
    zero_empty_negative: bool = False
    unconditional_forward: bool = True


@dataclass(frozen=True)
class PromptText:
    """A text to be encoded, and the picture that it is for: sides in px, pull towards the text.

    Attributes:
        syntax: of the text; "weighted" is for families that have the feature.
        paired_with: the text that shares its forward; both are encoded to one length.
        clip_skip: layers from the encoder's end, counted from the one that is usual.
    """

    text: str
    negative: bool
    width: int
    height: int
    guidance_scale: float
    syntax: PromptSyntax = "plain"
    paired_with: str = ""
    clip_skip: int = 1


@dataclass(frozen=True)
class DroppedText:
    """The end of a prompt that the model does not read."""

    tokens: int
    window_tokens: int
    text: str


def classifier_free(
    conditional: torch.Tensor, unconditional: torch.Tensor, scale: float
) -> torch.Tensor:
    """The usual guidance: away from the unconditional prediction."""
    return unconditional + scale * (conditional - unconditional)


def bilinear(
    components: Components, latents: torch.Tensor, height: int, width: int
) -> torch.Tensor:
    """The usual way to a larger pass: the latents as they are, bilinear."""
    del components
    return torch.nn.functional.interpolate(latents, size=(height, width), mode="bilinear")


class Loader(Protocol):
    """Reads a model of one family."""

    def __call__(
        self,
        folder: Path,
        dtype: torch.dtype,
        device: torch.device,
        checkpoint: Path | None = None,
        quantisation: Mapping[str, str] = NONE,
    ) -> Components: ...


@dataclass(frozen=True)
class Family:
    """An adapter. diffusers' pipelines are its reference, its models the code path.

    Attributes:
        name: as ``ModelProfile.family``.
        stages: which modules each stage uses.
        load: reads a folder's components into CPU memory in a dtype, for a device; the weights from
            a single file where there is one, parts in few bits as asked. Raises BrokenModelError.
        encode_prompt: prompt → conditioning of one sample.
        dropped_text: what of a text lies past the model's window, or None.
        prepare_latents: width and height in pixels, noise source, scale of the noise → latents
            [1, C, h, w]. Raises InvalidRequestError for sides the model's grid does not allow.
        set_timesteps: scheduler, steps, width and height in pixels; the scheduler then has its
            timesteps.
        predict: latents [B, C, h, w] (scaled by their schedulers), timesteps float32 [B],
            conditioning of B samples → prediction [B, C, h, w].
        encode: picture [1, 3, height, width] in -1..1 → a distribution to sample latents from.
        sample: of that distribution, with a noise source → latents [1, C, h, w].
        decode: latents [1, C, h, w] → picture [1, 3, height, width], nominally in -1..1.
        guide: conditional and unconditional prediction [1, C, h, w], scale → the one that is used.
        enlarge: latents [1, C, h, w], sides of a larger pass in latents → its latents, clean.
        mask_mode: how torch's ``interpolate`` brings a mask to the size of the latents.
    """

    name: str
    stages: dict[Stage, tuple[str, ...]]
    load: Loader
    encode_prompt: Callable[[Components, PromptText], Conditioning]
    dropped_text: Callable[[Components, str], DroppedText | None]
    prepare_latents: Callable[
        [Components, int, int, torch.Generator, float | torch.Tensor], torch.Tensor
    ]
    set_timesteps: Callable[[Components, Any, int, int, int], None]
    predict: Callable[[Components, torch.Tensor, torch.Tensor, Conditioning], torch.Tensor]
    encode: Callable[[Components, torch.Tensor], Any]
    sample: Callable[[Components, Any, torch.Generator], torch.Tensor]
    decode: Callable[[Components, torch.Tensor], torch.Tensor]
    guide: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor] = classifier_free
    enlarge: Callable[[Components, torch.Tensor, int, int], torch.Tensor] = bilinear
    mask_mode: Literal["nearest", "bilinear"] = "nearest"
