"""What the LoRA and the ControlNet of vista are about: pictures as prints, pictures as lines."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from training.palette import Rgb

# From the darkest tone to paper.
INKS: tuple[Rgb, ...] = (
    (0.09, 0.10, 0.20),
    (0.30, 0.16, 0.30),
    (0.62, 0.20, 0.26),
    (0.87, 0.42, 0.26),
    (0.96, 0.70, 0.42),
    (0.98, 0.91, 0.76),
)
# The weakest step between two areas that is a line, in 0..1 of one colour channel.
_LINE_STEP = 0.05
_LUMA: Rgb = (0.299, 0.587, 0.114)


def edges(pictures: Tensor) -> Tensor:
    """Lines where areas meet: [B,3,H,W] in 0..1 -> [B,1,H,W] of 0 (none) and 1.

    The largest central difference over the colour channels; smooth shading has none.
    """
    padded = functional.pad(pictures, (1, 1, 1, 1), mode="replicate")
    across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]).abs()
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]).abs()
    step = torch.maximum(across, down).amax(dim=1, keepdim=True)
    return (step > 2 * _LINE_STEP).to(pictures.dtype)


def screen_print(pictures: Tensor) -> Tensor:
    """As printed in six inks, the darkest places first: [B,3,H,W] in 0..1, and so is the print."""
    weights = torch.tensor(_LUMA, device=pictures.device).view(1, 3, 1, 1)
    # The power keeps nights readable.
    tone = (pictures * weights).sum(dim=1).clamp(0, 1) ** 0.7
    which = (tone * len(INKS)).long().clamp(max=len(INKS) - 1)
    inks = torch.tensor(INKS, dtype=pictures.dtype, device=pictures.device)
    return inks[which].permute(0, 3, 1, 2)
