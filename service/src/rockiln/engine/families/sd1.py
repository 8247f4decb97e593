"""Stable Diffusion 1.x and 2.x: CLIP text encoder, UNet, KL autoencoder."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextModel

from rockiln.engine.families.interface import (
    Components,
    Conditioning,
    DroppedText,
    Family,
    PromptText,
)
from rockiln.engine.families.latents import decode_latents, draw_noise, encode_picture
from rockiln.engine.families.loading import (
    WEIGHTS_OPTIONS,
    check_unet,
    load_clip_tokenizer,
    load_module,
)
from rockiln.engine.families.text import past_window, token_ids
from rockiln.engine.families.timesteps import by_steps
from rockiln.registry.json_file import read_json
from rockiln.registry.layouts import LAYOUTS
from rockiln.registry.weights import component_weights


def load(folder: Path, dtype: torch.dtype, device: torch.device) -> Components:
    """Reads the folder's components into CPU memory.

    Raises:
        BrokenModelError: a file is missing or unsound, or the parts do not fit together.
    """
    weights = component_weights(folder, LAYOUTS["sd1"])
    text_encoder = load_module(CLIPTextModel, weights["text_encoder"], dtype=dtype)
    unet = load_module(UNet2DConditionModel, weights["unet"], torch_dtype=dtype, **WEIGHTS_OPTIONS)
    vae = load_module(AutoencoderKL, weights["vae"], torch_dtype=dtype, **WEIGHTS_OPTIONS)
    check_unet(unet, vae, text_encoder.config.hidden_size)
    return Components(
        modules={"text_encoder": text_encoder, "unet": unet, "vae": vae},
        tokenizers={"tokenizer": load_clip_tokenizer(folder / "tokenizer", text_encoder)},
        scheduler_config=read_json(folder / "scheduler" / "scheduler_config.json"),
        dtype=dtype,
        device=device,
    )


def encode_prompt(components: Components, prompt: PromptText) -> Conditioning:
    """``prompt_embeds`` [1, window, width]; what is past the window is dropped."""
    ids = token_ids(components.tokenizers["tokenizer"], prompt.text).to(components.device)
    hidden = components.modules["text_encoder"](ids, attention_mask=None)[0]
    return {"prompt_embeds": hidden.to(components.dtype)}


def dropped_text(components: Components, text: str) -> DroppedText | None:
    """What lies past the tokenizer's window."""
    return past_window(components.tokenizers["tokenizer"], text)


def predict(
    components: Components,
    latents: torch.Tensor,
    timesteps: torch.Tensor,
    conditioning: Conditioning,
) -> torch.Tensor:
    """One forward of the UNet over B samples."""
    prediction: torch.Tensor = components.modules["unet"](
        latents,
        timesteps,
        encoder_hidden_states=conditioning["prompt_embeds"],
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
    decode=decode_latents,
)
