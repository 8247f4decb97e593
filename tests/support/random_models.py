"""Models of real size with random weights, placed as a plan says."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Qwen3Model,
    T5EncoderModel,
)
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLTextModel

from rockiln.domain.model import ModelProfile
from rockiln.domain.plan import Plan
from rockiln.engine.families import FAMILIES
from rockiln.engine.families.interface import Components
from rockiln.engine.loaded_model import LoadedModel
from rockiln.engine.placement import Placement
from rockiln.registry.layouts import LAYOUTS
from support.known_models import CONFIGS

# As the families have them in memory: language models without what no picture needs.
TEXT_CLASSES: dict[str, Any] = {
    "CLIPTextModel": CLIPTextModel,
    "CLIPTextModelWithProjection": CLIPTextModelWithProjection,
    "T5EncoderModel": T5EncoderModel,
    "Qwen3Model": Qwen3Model,
    "Qwen3ForCausalLM": Qwen3Model,
    "Qwen2_5_VLForConditionalGeneration": Qwen2_5_VLTextModel,
}
CLASSES: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        UNet2DConditionModel,
        SD3Transformer2DModel,
        FluxTransformer2DModel,
        Flux2Transformer2DModel,
        ZImageTransformer2DModel,
        QwenImageTransformer2DModel,
        AutoencoderKL,
        AutoencoderKLFlux2,
        AutoencoderKLQwenImage,
    )
}


def make_part(kind: str, config: dict[str, Any]) -> torch.nn.Module:
    """With the random numbers of its class."""
    made: torch.nn.Module
    if kind in TEXT_CLASSES:
        text_class = TEXT_CLASSES[kind]
        made = text_class(text_class.config_class(**config))
    else:
        dropped = {"force_upcast", "_class_name"}
        made = CLASSES[kind](**{key: each for key, each in config.items() if key not in dropped})
    return made


def build(profile: ModelProfile, chosen: Plan, device: torch.device) -> LoadedModel:
    """A model with random weights, placed as the plan says."""
    modules: dict[str, Any] = {}
    dtype: torch.dtype = getattr(torch, chosen.dtype)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            for part, config in CONFIGS[profile.id].items():
                module = make_part(LAYOUTS[profile.family].weighted[part][1], config)
                modules[part] = module.to(dtype).eval().requires_grad_(requires_grad=False)
                for name, inner in modules[part].named_modules():
                    if isinstance(modules[part], T5EncoderModel) and name.endswith(".wo"):
                        inner.float()  # as transformers loads it beside float16
    finally:
        torch.set_default_dtype(torch.float32)
    if chosen.decode_dtype is not None:
        modules["vae"].to(getattr(torch, chosen.decode_dtype))
    components = Components(modules, {}, {}, dtype, device)
    family = FAMILIES[profile.family]
    decode_device = torch.device("cpu") if chosen.decode_device == "cpu" else None
    placement = Placement(family.stages, components, chosen.placement, decode_device)
    placement.settle()
    return LoadedModel(components, placement, profile, "0" * 64, family)
