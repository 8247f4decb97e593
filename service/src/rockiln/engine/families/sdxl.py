"""Stable Diffusion XL: two CLIP text encoders, UNet told of the picture's size, KL autoencoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.quantisation import NONE
from rockiln.engine.families.clip import dropped_text, encode_pair
from rockiln.engine.families.interface import (
    Components,
    Conditioning,
    Family,
    PromptText,
)
from rockiln.engine.families.latents import (
    decode_latents,
    draw_noise,
    encode_picture,
    sample_latents,
)
from rockiln.engine.families.loading import (
    check_unet,
    load_clip_tokenizer,
    load_module,
    model_weights,
)
from rockiln.engine.families.residuals import residual_arguments
from rockiln.engine.families.timesteps import by_steps
from rockiln.registry.folder import INDEX_NAME
from rockiln.registry.json_file import read_json

_SIZE_NUMBERS = 6  # original size, crop, target size


def load(
    folder: Path,
    dtype: torch.dtype,
    device: torch.device,
    checkpoint: Path | None = None,
    quantisation: Mapping[str, str] = NONE,
) -> Components:
    """Reads the folder's components into CPU memory.

    An autoencoder that says ``force_upcast`` overflows in float16 and is loaded in float32.

    Raises:
        BrokenModelError: a file is missing or unsound, or the parts do not fit together.
    """
    weights = model_weights(folder, "sdxl", checkpoint, quantisation)
    upcast = read_json(folder / "vae" / "config.json").get("force_upcast", True)
    vae_dtype = torch.float32 if dtype is torch.float16 and upcast else dtype
    first = load_module(CLIPTextModel, weights["text_encoder"], dtype)
    second = load_module(CLIPTextModelWithProjection, weights["text_encoder_2"], dtype)
    unet = load_module(UNet2DConditionModel, weights["unet"], dtype)
    vae = load_module(AutoencoderKL, weights["vae"], vae_dtype)
    check_unet(unet, vae, first.config.hidden_size + second.config.hidden_size)
    _check_added_conditions(unet, second.config.projection_dim)
    zero_empty = bool(read_json(folder / INDEX_NAME).get("force_zeros_for_empty_prompt", True))
    return Components(
        modules={"text_encoder": first, "text_encoder_2": second, "unet": unet, "vae": vae},
        tokenizers={
            "tokenizer": load_clip_tokenizer(folder / "tokenizer", first),
            "tokenizer_2": load_clip_tokenizer(folder / "tokenizer_2", second),
        },
        scheduler_config=read_json(folder / "scheduler" / "scheduler_config.json"),
        dtype=dtype,
        device=device,
        zero_empty_negative=zero_empty,
    )


def encode_prompt(components: Components, prompt: PromptText) -> Conditioning:
    """``prompt_embeds`` [1, windows, width], ``text_embeds`` [1, width], ``time_ids`` [1, 6].

    No negative text stands for zeros where the model says so, as in the reference pipeline.
    """
    encoded = encode_pair(components, prompt)
    text, (pooled,) = encoded.tokens, encoded.pooled
    if prompt.negative and not prompt.text and components.zero_empty_negative:
        text, pooled = torch.zeros_like(text), torch.zeros_like(pooled)
    size = (prompt.height, prompt.width)
    time_ids = torch.tensor([[*size, 0, 0, *size]], dtype=components.dtype)
    return {
        "prompt_embeds": text.to(components.dtype),
        "text_embeds": pooled.to(components.dtype),
        "time_ids": time_ids.to(components.device),
    }


def predict(
    components: Components,
    latents: torch.Tensor,
    timesteps: torch.Tensor,
    conditioning: Conditioning,
) -> torch.Tensor:
    """One forward of the UNet over B samples, with residuals where there are any."""
    prediction: torch.Tensor = components.modules["unet"](
        latents,
        timesteps,
        encoder_hidden_states=conditioning["prompt_embeds"],
        added_cond_kwargs={
            "text_embeds": conditioning["text_embeds"],
            "time_ids": conditioning["time_ids"],
        },
        **residual_arguments(conditioning),
        return_dict=False,
    )[0]
    return prediction


def _check_added_conditions(unet: UNet2DConditionModel, pooled_width: int) -> None:
    config = unet.config
    if config.addition_embed_type != "text_time":
        raise BrokenModelError(f"unet takes {config.addition_embed_type!r}, not text and sizes")
    width = pooled_width + _SIZE_NUMBERS * config.addition_time_embed_dim
    if config.projection_class_embeddings_input_dim != width:
        raise BrokenModelError(
            f"unet takes {config.projection_class_embeddings_input_dim} numbers of text and sizes, "
            f"the text encoder and {_SIZE_NUMBERS} sizes make {width}: a refiner or other variant"
        )


FAMILY = Family(
    name="sdxl",
    stages={
        "encode_prompt": ("text_encoder", "text_encoder_2"),
        "denoise": ("unet",),
        "decode": ("vae",),
    },
    load=load,
    encode_prompt=encode_prompt,
    dropped_text=dropped_text,
    set_timesteps=by_steps,
    prepare_latents=draw_noise,
    predict=predict,
    encode=encode_picture,
    sample=sample_latents,
    decode=decode_latents,
)
