"""A tiny ControlNet for a tiny SD 1.x or SDXL model, with random weights that can be seen."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from rockiln.registry.checkpoint_names import PREFIXES, original_shapes

_ORIGINAL = (
    (r"controlnet_down_blocks\.(\d+)\.", r"zero_convs.\1.0."),
    (r"controlnet_mid_block\.", "middle_block_out.0."),
    (r"controlnet_cond_embedding\.conv_in\.", "input_hint_block.0."),
)


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


def original_names(names: Iterable[str]) -> dict[str, str]:
    """diffusers' name → the original one: those of a UNet's first half, and a few of its own."""
    found = {}
    for name in names:
        place = re.match(r"controlnet_cond_embedding\.(?:blocks\.(\d+)|conv_out)\.", name)
        if place is not None:
            layers = 1 + sum("embedding.blocks." in each and "bias" in each for each in names)
            number = 2 * (layers if place[1] is None else int(place[1]) + 1)
            found[name] = f"input_hint_block.{number}.{name.removeprefix(place[0])}"
        elif name.startswith("controlnet_"):
            found[name] = name
            for ours, theirs in _ORIGINAL:
                found[name] = re.sub(ours, theirs, found[name])
    rest = {name: () for name in names if name not in found}
    unet = original_shapes("sd1", "unet", rest)
    bare = (name.removeprefix(PREFIXES["sd1"]["unet"]) for name in unet)
    return found | dict(zip(rest, bare, strict=True))


def write_controlnet_file(
    folder: Path,
    path: Path,
    prefix: str | None = None,
    **changes: torch.Tensor | None,
) -> Path:
    """The one in ``folder`` as a file.

    Args:
        prefix: of its original names; None leaves it diffusers' ones.
        changes: tensors by name, None for one that is left out.
    """
    tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
    if prefix is not None:
        names = original_names(list(tensors))
        tensors = {prefix + names[name]: each for name, each in tensors.items()}
    written = {**tensors, **changes}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: each for name, each in written.items() if each is not None}, path)
    path.chmod(0o644)
    return path
