"""FLUX.1: CLIP for the text as a whole, T5 for its tokens, a transformer over 2x2 patches.

Guidance is a number that the network is told (dev) or has been distilled away (schnell): there is
no second, unconditional forward, and a negative prompt has no effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from transformers import CLIPTextModel, T5EncoderModel

from rockiln.domain.quantisation import NONE
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
from rockiln.engine.families.patches import PATCH, from_patches, to_patches
from rockiln.engine.families.text import past_window, token_ids
from rockiln.engine.families.timesteps import even_sigmas, picture_shift, set_flow_timesteps
from rockiln.registry.json_file import read_json

T5_WINDOW_TOKENS = 512
_MAX_SHIFT = 1.15
_TRAIN_TIMESTEPS = 1000


def load(
    folder: Path,
    dtype: torch.dtype,
    device: torch.device,
    checkpoint: Path | None = None,
    quantisation: Mapping[str, str] = NONE,
) -> Components:
    """Reads the folder's components into CPU memory.

    Raises:
        BrokenModelError: a file is missing or unsound, or the parts do not fit together.
    """
    weights = model_weights(folder, "flux", checkpoint, quantisation)
    clip = load_module(CLIPTextModel, weights["text_encoder"], dtype)
    t5 = load_module(T5EncoderModel, weights["text_encoder_2"], dtype)
    transformer = load_module(FluxTransformer2DModel, weights["transformer"], dtype)
    vae = load_module(AutoencoderKL, weights["vae"], dtype)
    check_transformer(
        transformer,
        latent_channels=vae.config.latent_channels * PATCH * PATCH,
        text_width=t5.config.d_model,
        pooled_width=clip.config.hidden_size,
    )
    return Components(
        modules={
            "text_encoder": clip,
            "text_encoder_2": t5,
            "transformer": transformer,
            "vae": vae,
        },
        tokenizers={
            "tokenizer": load_clip_tokenizer(folder / "tokenizer", clip),
            "tokenizer_2": load_t5_tokenizer(folder / "tokenizer_2", t5),
        },
        scheduler_config=read_json(folder / "scheduler" / "scheduler_config.json"),
        dtype=dtype,
        device=device,
        unconditional_forward=False,
    )


def encode_prompt(components: Components, prompt: PromptText) -> Conditioning:
    """``prompt_embeds`` [1, window, width], ``pooled`` [1, width], ``guidance`` float32 [1]."""
    clip_ids = token_ids(components.tokenizers["tokenizer"], prompt.text)
    t5_ids = token_ids(components.tokenizers["tokenizer_2"], prompt.text, T5_WINDOW_TOKENS)
    pooled = components.modules["text_encoder"](clip_ids.to(components.device)).pooler_output
    tokens = components.modules["text_encoder_2"](t5_ids.to(components.device))[0]
    return {
        "prompt_embeds": tokens.to(components.dtype),
        "pooled": pooled.to(components.dtype),
        "guidance": torch.full(
            [1], prompt.guidance_scale, device=components.device, dtype=torch.float32
        ),
    }


def dropped_text(components: Components, text: str) -> DroppedText | None:
    """What T5 does not read."""
    return past_window(components.tokenizers["tokenizer_2"], text, T5_WINDOW_TOKENS)


def set_timesteps(
    components: Components, scheduler: Any, steps: int, width: int, height: int
) -> None:
    """Even sigmas, moved by the picture's size where the scheduler's config asks for it."""
    mu = picture_shift(components, width, height, patch=PATCH, most=_MAX_SHIFT)
    set_flow_timesteps(
        scheduler,
        steps,
        components.device,
        mu=mu,
        sigmas=even_sigmas(steps),
    )


def predict(
    components: Components,
    latents: torch.Tensor,
    timesteps: torch.Tensor,
    conditioning: Conditioning,
) -> torch.Tensor:
    """One forward of the transformer over B samples. Patches are made of the latents and undone."""
    transformer = components.modules["transformer"]
    height, width = latents.shape[-2:]
    rows, columns = height // PATCH, width // PATCH
    text = conditioning["prompt_embeds"]
    prediction = transformer(
        hidden_states=to_patches(latents),
        timestep=timesteps.to(latents.dtype) / _TRAIN_TIMESTEPS,
        guidance=conditioning["guidance"] if transformer.config.guidance_embeds else None,
        pooled_projections=conditioning["pooled"],
        encoder_hidden_states=text,
        txt_ids=latents.new_zeros(text.shape[1], 3),
        img_ids=_places(rows, columns).to(latents),
        return_dict=False,
    )[0]
    return from_patches(prediction, rows, columns)


def _places(rows: int, columns: int) -> torch.Tensor:
    """[rows * columns, 3]: nothing, row, column."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros_like(row), row, column], dim=-1).reshape(-1, 3)


FAMILY = Family(
    name="flux",
    stages={
        "encode_prompt": ("text_encoder", "text_encoder_2"),
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
