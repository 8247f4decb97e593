"""Models of real size with random weights, placed as a plan says."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from rockiln.domain.model import ModelProfile
from rockiln.domain.plan import Plan
from rockiln.engine.families import FAMILIES
from rockiln.engine.families.interface import Components
from rockiln.engine.loaded_model import LoadedModel
from rockiln.engine.placement import Placement
from rockiln.registry.layouts import LAYOUTS
from support.known_models import CONFIGS

TEXT_CLASSES: dict[str, Any] = {
    kind.__name__: kind for kind in (CLIPTextModel, CLIPTextModelWithProjection)
}
CLASSES: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        UNet2DConditionModel,
        SD3Transformer2DModel,
        FluxTransformer2DModel,
        AutoencoderKL,
    )
}


def make_part(kind: str, config: dict[str, Any]) -> torch.nn.Module:
    """With the random numbers of its class."""
    made: torch.nn.Module
    if kind == "T5EncoderModel":
        made = T5EncoderModel(T5Config(**config))
    elif kind in TEXT_CLASSES:
        made = TEXT_CLASSES[kind](CLIPTextConfig(**config))
    else:
        dropped = {"force_upcast", "_class_name"}
        made = CLASSES[kind](**{key: each for key, each in config.items() if key not in dropped})
    return made


def build(profile: ModelProfile, chosen: Plan, device: torch.device) -> LoadedModel:
    """A model with random weights, placed as the plan says."""
    modules: dict[str, Any] = {}
    torch.set_default_dtype(torch.float16)
    try:
        with torch.device(device):
            for part, config in CONFIGS[profile.id].items():
                module = make_part(LAYOUTS[profile.family].weighted[part][1], config)
                modules[part] = module.half().eval().requires_grad_(requires_grad=False)
                for name, inner in modules[part].named_modules():
                    if isinstance(modules[part], T5EncoderModel) and name.endswith(".wo"):
                        inner.float()  # as transformers loads it
    finally:
        torch.set_default_dtype(torch.float32)
    if chosen.decode_dtype is not None:
        modules["vae"].to(getattr(torch, chosen.decode_dtype))
    components = Components(modules, {}, {}, torch.float16, device)
    family = FAMILIES[profile.family]
    decode_device = torch.device("cpu") if chosen.decode_device == "cpu" else None
    placement = Placement(family.stages, components, chosen.placement, decode_device)
    placement.settle()
    return LoadedModel(components, placement, profile, "0" * 64, family)
