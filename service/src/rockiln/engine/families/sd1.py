"""Stable Diffusion 1.x and 2.x: CLIP text encoder, UNet, KL autoencoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextModel

from rockiln.domain.quantisation import NONE
from rockiln.engine.families.clip import dropped_text, encode_single
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
from rockiln.registry.json_file import read_json


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
    weights = model_weights(folder, "sd1", checkpoint, quantisation)
    text_encoder = load_module(CLIPTextModel, weights["text_encoder"], dtype)
    unet = load_module(UNet2DConditionModel, weights["unet"], dtype)
    vae = load_module(AutoencoderKL, weights["vae"], dtype)
    check_unet(unet, vae, text_encoder.config.hidden_size)
    return Components(
        modules={"text_encoder": text_encoder, "unet": unet, "vae": vae},
        tokenizers={"tokenizer": load_clip_tokenizer(folder / "tokenizer", text_encoder)},
        scheduler_config=read_json(folder / "scheduler" / "scheduler_config.json"),
        dtype=dtype,
        device=device,
    )


def encode_prompt(components: Components, prompt: PromptText) -> Conditioning:
    """``prompt_embeds`` [1, windows, width]; a plain text has one window."""
    return {"prompt_embeds": encode_single(components, prompt).to(components.dtype)}


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
        **residual_arguments(conditioning),
        return_dict=False,
    )[0]
    return prediction


FAMILY = Family(
    name="sd1",
    stages={"encode_prompt": ("text_encoder",), "denoise": ("unet",), "decode": ("vae",)},
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
