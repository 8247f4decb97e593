"""From the decoder's tensor to pixels, and the check that they are a picture."""

from __future__ import annotations

import numpy as np
import torch

from rockiln.domain.errors import RockilnError
from rockiln.engine.png import Pixels

# A picture whose every channel spans no more than this is one colour to the eye.
FLAT_SPREAD = 1


class BadOutputError(RockilnError):
    """What the model made is not a picture: not numbers, or one flat colour."""


def check_latents(latents: torch.Tensor) -> None:
    """Raises BadOutputError on NaN or infinity, before such latents are stored for a retry."""
    if not bool(torch.isfinite(latents).all()):
        raise BadOutputError("denoising ended in values that are not numbers (NaN or infinity)")


def to_pixels(picture: torch.Tensor) -> Pixels:
    """Picture [1, 3, H, W], nominally in -1..1 → pixels [H, W, 3], rounded half to even.

    Raises:
        BadOutputError: not finite, or flat.
    """
    if not bool(torch.isfinite(picture).all()):
        raise BadOutputError("the decoder gave values that are not numbers (NaN or infinity)")
    # In float32: bfloat16 has 8 bits, as many as a pixel, and rounding twice would show.
    scaled = (picture.float() * 0.5 + 0.5).clamp(0, 1)[0].permute(1, 2, 0).cpu().numpy()
    pixels: Pixels = (scaled * 255).round().astype(np.uint8)
    low, high = pixels.min(axis=(0, 1)), pixels.max(axis=(0, 1))
    if int((high.astype(int) - low).max()) <= FLAT_SPREAD:
        raise BadOutputError(f"the picture is one flat colour, about {low.tolist()}")
    return pixels
