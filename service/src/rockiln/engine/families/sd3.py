"""Stable Diffusion 3 and 3.5: two CLIP text encoders, T5 if it is there, MMDiT, KL autoencoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from transformers import CLIPTextModelWithProjection, T5EncoderModel

from rockiln.domain.quantisation import NONE
from rockiln.engine.families.clip import encode_pair
from rockiln.engine.families.interface import (
    Components,
    Conditioning,
    DroppedText,
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
    check_transformer,
    load_clip_tokenizer,
    load_module,
    load_t5_tokenizer,
    model_weights,
)
from rockiln.engine.families.text import past_window, token_ids
from rockiln.engine.families.timesteps import picture_shift, set_flow_timesteps
from rockiln.registry.json_file import read_json

T5_WINDOW_TOKENS = 256
_MAX_SHIFT = 1.16


def load(
    folder: Path,
    dtype: torch.dtype,
    device: torch.device,
    checkpoint: Path | None = None,
    quantisation: Mapping[str, str] = NONE,
) -> Components:
    """Reads the folder's components into CPU memory; a folder may leave T5 out.

    Raises:
        BrokenModelError: a file is missing or unsound, or the parts do not fit together.
    """
    weights = model_weights(folder, "sd3", checkpoint, quantisation)
    first = load_module(CLIPTextModelWithProjection, weights["text_encoder"], dtype)
    second = load_module(CLIPTextModelWithProjection, weights["text_encoder_2"], dtype)
    transformer = load_module(SD3Transformer2DModel, weights["transformer"], dtype)
    vae = load_module(AutoencoderKL, weights["vae"], dtype)
    modules: dict[str, Any] = {"text_encoder": first, "text_encoder_2": second}
    tokenizers = {
        "tokenizer": load_clip_tokenizer(folder / "tokenizer", first),
        "tokenizer_2": load_clip_tokenizer(folder / "tokenizer_2", second),
    }
    text_width = transformer.config.joint_attention_dim
    if "text_encoder_3" in weights:
        third = load_module(T5EncoderModel, weights["text_encoder_3"], dtype)
        modules["text_encoder_3"] = third
        tokenizers["tokenizer_3"] = load_t5_tokenizer(folder / "tokenizer_3", third)
        text_width = third.config.d_model
    check_transformer(
        transformer,
        latent_channels=vae.config.latent_channels,
        text_width=text_width,
        pooled_width=first.config.projection_dim + second.config.projection_dim,
    )
    return Components(
        modules={**modules, "transformer": transformer, "vae": vae},
        tokenizers=tokenizers,
        scheduler_config=read_json(folder / "scheduler" / "scheduler_config.json"),
        dtype=dtype,
        device=device,
    )


def encode_prompt(components: Components, prompt: PromptText) -> Conditioning:
    """``prompt_embeds`` [1, CLIP window + T5 window, width], ``pooled`` [1, width].

    Without T5 its part is zeros, as in the reference pipeline.
    """
    encoded = encode_pair(components, prompt)
    clip = encoded.tokens
    width = components.modules["transformer"].config.joint_attention_dim
    if "text_encoder_3" in components.modules:
        ids = token_ids(components.tokenizers["tokenizer_3"], prompt.text, T5_WINDOW_TOKENS)
        t5 = components.modules["text_encoder_3"](ids.to(components.device))[0]
    else:
        t5 = clip.new_zeros((1, T5_WINDOW_TOKENS, width))
    clip = torch.nn.functional.pad(clip, (0, width - clip.shape[-1]))
    return {
        "prompt_embeds": torch.cat([clip, t5], dim=-2).to(components.dtype),
        "pooled": torch.cat(encoded.pooled, dim=-1).to(components.dtype),
    }


def dropped_text(components: Components, text: str) -> DroppedText | None:
    """What the encoder with the longest window does not read."""
    if "tokenizer_3" in components.tokenizers:
        return past_window(components.tokenizers["tokenizer_3"], text, T5_WINDOW_TOKENS)
    return past_window(components.tokenizers["tokenizer"], text)


def set_timesteps(
    components: Components, scheduler: Any, steps: int, width: int, height: int
) -> None:
    """Moved by the picture's size where the scheduler's config asks for it."""
    patch = components.modules["transformer"].config.patch_size
    mu = picture_shift(components, width, height, patch=patch, most=_MAX_SHIFT)
    set_flow_timesteps(scheduler, steps, components.device, mu=mu)


def predict(
    components: Components,
    latents: torch.Tensor,
    timesteps: torch.Tensor,
    conditioning: Conditioning,
) -> torch.Tensor:
    """One forward of the transformer over B samples."""
    prediction: torch.Tensor = components.modules["transformer"](
        hidden_states=latents,
        timestep=timesteps,
        encoder_hidden_states=conditioning["prompt_embeds"],
        pooled_projections=conditioning["pooled"],
        return_dict=False,
    )[0]
    return prediction


FAMILY = Family(
    name="sd3",
    stages={
        "encode_prompt": ("text_encoder", "text_encoder_2", "text_encoder_3"),
        "denoise": ("transformer",),
        "decode": ("vae",),
    },
    load=load,
    encode_prompt=encode_prompt,
    dropped_text=dropped_text,
    set_timesteps=set_timesteps,
    prepare_latents=draw_noise,
    predict=predict,
    encode=encode_picture,
    sample=sample_latents,
    decode=decode_latents,
)
