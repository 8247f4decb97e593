"""What tiny models of every family make of a text, their modules placed in one way or another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from rockiln.domain.plan import Placement as PlacementName
from rockiln.engine.families import FAMILIES
from rockiln.engine.families.interface import Components, Conditioning, PromptText
from rockiln.engine.placement import Placement
from support.tiny_flow import make_tiny_flux, make_tiny_sd3
from support.tiny_qwen import make_tiny_flux2, make_tiny_qwen_image, make_tiny_z_image
from support.tiny_sd1 import make_tiny_sd1
from support.tiny_sdxl import make_tiny_sdxl

MAKERS: dict[str, Callable[[Path], Path]] = {
    "sd1": make_tiny_sd1,
    "sdxl": make_tiny_sdxl,
    "sd3": make_tiny_sd3,
    "flux": make_tiny_flux,
    "flux2": make_tiny_flux2,
    "z_image": make_tiny_z_image,
    "qwen_image": make_tiny_qwen_image,
}
WEIGHTED = frozenset({"sd1", "sdxl"})
LONG = "a (red boat:1.3) on a [lake] " * 20


def load(
    family: str, root: Path, device: torch.device, dtype: torch.dtype = torch.float32
) -> Components:
    """Its weights begin where an allocation does, and not within a mapped file.

    A CPU sums the product of a vector and a matrix by where that begins.
    """
    folder = root / family
    if not folder.exists():
        MAKERS[family](folder)
    components = FAMILIES[family].load(folder, dtype, device)
    for module in components.modules.values():
        for weight in module.parameters():
            weight.data = weight.data.clone()
    return components


def settle(family: str, components: Components, placement: PlacementName) -> None:
    placed = Placement(FAMILIES[family].stages, components, placement)
    placed.settle()
    placed.enter("encode_prompt")


@torch.no_grad()
def encoded(family: str, components: Components) -> list[Conditioning]:
    """Of a plain text; where the family has that, of a long one with weights, a layer skipped."""
    asked = [PromptText("a red boat", False, 64, 64, 4.0)]
    if family in WEIGHTED:
        asked.append(PromptText(LONG, False, 64, 64, 4.0, syntax="weighted", clip_skip=2))
    return [FAMILIES[family].encode_prompt(components, prompt) for prompt in asked]
