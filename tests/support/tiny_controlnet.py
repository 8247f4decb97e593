"""A tiny ControlNet for a tiny SD 1.x or SDXL model, with random weights that can be seen."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel


def make_tiny_controlnet(folder: Path, model: Path, *, seed: int = 0, small: bool = False) -> Path:
    """Writes it to ``folder`` and returns that.

    Args:
        model: the folder of its base.
        small: without attention, as the field's small ones for SDXL are.
    """
    unet = UNet2DConditionModel.from_pretrained(model / "unet", low_cpu_mem_usage=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 4, 8, 8))
        if small:
            plain = {"down_block_types": ("DownBlock2D",) * 2, "mid_block_type": "UNetMidBlock2D"}
            made = ControlNetModel.from_config({**made.config, **plain})
        for name, tensor in made.named_parameters():
            if name.startswith("controlnet_"):  # zeros, which change nothing, before a training
                torch.nn.init.normal_(tensor, std=0.3)
    made.save_pretrained(folder)
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)
    return folder
