"""Z-Image: Qwen3 for the text, one stream of picture and text, the autoencoder of FLUX.1.

Latents and the scheduler's steps are float32 whatever the weights are, as in the reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel

from rockiln.domain.quantisation import NONE
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
    check_widths,
    load_module,
    load_qwen_tokenizer,
    model_weights,
)
from rockiln.engine.families.patches import PATCH
from rockiln.engine.families.qwen_text import ANSWER, USER, Chat, fill_up, load_qwen3
from rockiln.engine.families.timesteps import picture_shift, set_flow_timesteps
from rockiln.registry.json_file import read_json

CHAT = Chat(USER, ANSWER, window_tokens=512)
_TEXT_LAYER = -2
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
    weights = model_weights(folder, "z_image", checkpoint, quantisation)
    text_encoder = load_qwen3(weights["text_encoder"], dtype)
    transformer = load_module(ZImageTransformer2DModel, weights["transformer"], dtype)
    vae = load_module(AutoencoderKL, weights["vae"], dtype)
    check_widths(
        (transformer.config.in_channels, vae.config.latent_channels, "latent channels"),
        (
            transformer.config.cap_feat_dim,
            text_encoder.config.hidden_size,
            "numbers per token of text",
        ),
    )
    return Components(
        modules={"text_encoder": text_encoder, "transformer": transformer, "vae": vae},
        tokenizers={"tokenizer": load_qwen_tokenizer(folder / "tokenizer", text_encoder)},
        scheduler_config=read_json(folder / "scheduler" / "scheduler_config.json"),
        dtype=dtype,
        device=device,
    )


def encode_prompt(components: Components, prompt: PromptText) -> Conditioning:
    """``prompt_embeds`` [1, window, width], and ``tokens`` [1], how many of them are read."""
    read = CHAT.read(components, prompt.text, filled=True)
    hidden = components.modules["text_encoder"](
        input_ids=read.input_ids,
        attention_mask=read.attention_mask.bool(),
        output_hidden_states=True,
        use_cache=False,
    ).hidden_states[_TEXT_LAYER]
    tokens = hidden[:, read.attention_mask[0].bool()]
    return fill_up(tokens.to(components.dtype), CHAT.window_tokens)


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
        sigmas=torch.linspace(1.0, 1 / steps, steps).tolist(),
    )


def predict(
    components: Components,
    latents: torch.Tensor,
    timesteps: torch.Tensor,
    conditioning: Conditioning,
) -> torch.Tensor:
    """One forward of the transformer over B samples; it counts time from noise to picture."""
    counts = conditioning["tokens"].tolist()
    text = [
        tokens[:count] for tokens, count in zip(conditioning["prompt_embeds"], counts, strict=True)
    ]
    pictures = list(latents.to(components.dtype).unsqueeze(2))
    prediction = components.modules["transformer"](
        pictures, (_TRAIN_TIMESTEPS - timesteps) / _TRAIN_TIMESTEPS, text, return_dict=False
    )[0]
    return -torch.stack(prediction).squeeze(2).float()


def guide(conditional: torch.Tensor, unconditional: torch.Tensor, scale: float) -> torch.Tensor:
    """In the reference's order; its number for the same pull is one less."""
    return conditional + (scale - 1) * (conditional - unconditional)


FAMILY = Family(
    name="z_image",
    stages={
        "encode_prompt": ("text_encoder",),
        "denoise": ("transformer",),
        "decode": ("vae",),
    },
    load=load,
    encode_prompt=encode_prompt,
    dropped_text=CHAT.dropped_text,
    set_timesteps=set_timesteps,
    prepare_latents=partial(draw_noise, dtype=torch.float32),
    predict=predict,
    encode=encode_picture,
    sample=sample_latents,
    decode=decode_latents,
    guide=guide,
)
