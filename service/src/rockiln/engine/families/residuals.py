"""What a ControlNet adds to a UNet's skips and middle, as conditioning of its forward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from rockiln.engine.families.interface import Conditioning

_NAME = "residual_"


def residual_conditioning(residuals: Sequence[torch.Tensor]) -> Conditioning:
    """Of the skips in their order [B, C, h, w], and last of the middle."""
    return {f"{_NAME}{place:03}": tensor for place, tensor in enumerate(residuals)}


def residual_arguments(conditioning: Conditioning) -> dict[str, Any]:
    """Arguments of diffusers' UNet; none where no ControlNet is at work."""
    found = [conditioning[name] for name in sorted(conditioning) if name.startswith(_NAME)]
    if not found:
        return {}
    *down, middle = found
    return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
