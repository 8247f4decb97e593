"""Models of real size with random weights, placed as a plan says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import gguf
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.quantizers.gguf.utils import GGUFParameter
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Qwen3Model,
    T5EncoderModel,
)
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLTextModel

from rockiln.domain.model import ModelProfile
from rockiln.domain.plan import Plan
from rockiln.domain.quantisation import (
    AT_LOAD,
    FLOAT8,
    TYPE_BY_NAME,
    QuantisedWeights,
    StoredTensor,
)
from rockiln.engine.families import FAMILIES
from rockiln.engine.families.interface import Components
from rockiln.engine.loaded_model import LoadedModel, LoadedParts
from rockiln.engine.placement import Placement
from rockiln.engine.policies import PolicySet
from rockiln.engine.quantisation import Float8Linear, QuantisedLinear, layer_shape
from rockiln.registry.layouts import LAYOUTS
from rockiln.registry.quantised_weights import held_quantised, rounded_at_load
from support.known_models import CONFIGS, FAMILY

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
    """A model with random weights, placed as the plan says, its parts in few bits made of zeros."""
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
                if part in chosen.quantisation:
                    hold(modules[part], chosen.quantisation[part])
    finally:
        torch.set_default_dtype(torch.float32)
    if chosen.quantisation and device.type != "meta":
        # To come to the device as from a file, not between what was made and dropped there.
        for module in modules.values():
            module.to("cpu")
        torch.cuda.empty_cache()
    if chosen.decode_dtype is not None:
        modules["vae"].to(getattr(torch, chosen.decode_dtype))
    components = Components(modules, {}, {}, dtype, device)
    family = FAMILIES[profile.family]
    decode_device = torch.device("cpu") if chosen.decode_device == "cpu" else None
    placement = Placement(family.stages, components, chosen.placement, decode_device)
    placement.settle()
    return LoadedModel(components, placement, profile, "0" * 64, family)


def controlnets_beside(model: LoadedModel, chosen: Plan) -> Sequence[LoadedParts]:
    """Those of the model's profile, as ``engine.controlnets`` has them."""
    components, found = model.components, []
    for _ in model.profile.controlnets:
        with torch.device(components.device):
            unet = components.modules["unet"]
            module: Any = ControlNetModel.from_unet(unet, load_weights_from_unet=False)
        module.to(components.dtype).eval().requires_grad_(requires_grad=False)
        alone = replace(components, modules={"controlnet": module})
        placement = Placement(
            {"denoise": ("controlnet",)}, alone, chosen.placement, staging=model.placement.staging
        )
        parts = LoadedParts(alone, placement)
        parts.placement.settle()
        PolicySet(parts).align(replace(chosen, vae_tile_px=None))
        found.append(parts)
    return found


@cache
def held_in_bits(name: str, part: str, kind: str) -> QuantisedWeights:
    """What is told of a known model's part whose layers are held in that type."""
    with torch.device("meta"):
        module = make_part(LAYOUTS[FAMILY[name]].weighted[part][1], CONFIGS[name][part])
    return hold(module, kind)


def hold(module: torch.nn.Module, kind: str) -> QuantisedWeights:
    """Puts zeros of that type in the place of what is rounded at load, in host memory."""
    names = [name for name, each in module.named_modules() if isinstance(each, torch.nn.Linear)]
    tensors, found = [], TYPE_BY_NAME[kind]
    on_paper = all(weight.is_meta for weight in module.parameters())
    place = torch.device("meta" if on_paper else "cpu")
    for name in names:
        layer: Any = module.get_submodule(name)
        shape = layer_shape(layer)
        if rounded_at_load(f"{name}.weight", shape):
            tensors.append(StoredTensor(shape, found, 0))
            rows, columns = shape
            held = torch.zeros((rows, found.bytes_of(columns)), dtype=torch.int8, device=place)
            module.set_submodule(name, quantised_like(layer, held, kind))
    summed = held_quantised(tensors)
    assert summed is not None
    return replace(summed, at_load=kind == AT_LOAD)


def quantised_like(layer: torch.nn.Linear, held: torch.Tensor, kind: str) -> QuantisedLinear:
    """A layer of these bytes in the place of a plain one, as ``engine.quantisation`` makes it."""
    sides, has_bias = (layer.in_features, layer.out_features), layer.bias is not None
    is_float8, number = kind == FLOAT8.name, TYPE_BY_NAME[kind].number
    with torch.device("meta"):
        made: QuantisedLinear = (Float8Linear if is_float8 else QuantisedLinear)(
            *sides, has_bias, compute_dtype=layer.weight.dtype
        )
    made.weight = (
        torch.nn.Parameter(held, requires_grad=False)
        if is_float8
        else GGUFParameter(held, quant_type=gguf.GGMLQuantizationType(number))
    )
    made.bias = layer.bias
    return made
