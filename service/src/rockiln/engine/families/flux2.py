"""FLUX.2 klein: three layers of Qwen3 for the text, latents of 2x2 places as one.

A distilled model (``is_distilled`` in the folder's index) has no second, unconditional forward.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.quantisation import NONE
from rockiln.engine.families.interface import (
    Components,
    Conditioning,
    Family,
    PromptText,
)
from rockiln.engine.families.latents import draw_noise, encode_picture, grid_px_of
from rockiln.engine.families.loading import (
    check_widths,
    load_module,
    load_qwen_tokenizer,
    model_weights,
)
from rockiln.engine.families.patches import PATCH, from_patches, to_patches
from rockiln.engine.families.qwen_text import ANSWER, USER, Chat, load_qwen3
from rockiln.engine.families.timesteps import even_sigmas, set_flow_timesteps
from rockiln.registry.json_file import read_json

CHAT = Chat(USER, f"{ANSWER}<think>\n\n</think>\n\n", window_tokens=512)
TEXT_LAYERS = (9, 18, 27)
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
    weights = model_weights(folder, "flux2", checkpoint, quantisation)
    text_encoder = load_qwen3(weights["text_encoder"], dtype)
    transformer = load_module(Flux2Transformer2DModel, weights["transformer"], dtype)
    vae = load_module(AutoencoderKLFlux2, weights["vae"], dtype)
    if text_encoder.config.num_hidden_layers < max(TEXT_LAYERS):
        raise BrokenModelError(
            f"text_encoder has {text_encoder.config.num_hidden_layers} layers, not "
            f"{max(TEXT_LAYERS)}"
        )
    check_widths(
        (transformer.config.in_channels, vae.config.latent_channels * PATCH**2, "latent channels"),
        (
            transformer.config.joint_attention_dim,
            text_encoder.config.hidden_size * len(TEXT_LAYERS),
            "numbers per token of text",
        ),
    )
    index = read_json(folder / "model_index.json")
    return Components(
        modules={"text_encoder": text_encoder, "transformer": transformer, "vae": vae},
        tokenizers={"tokenizer": load_qwen_tokenizer(folder / "tokenizer", text_encoder)},
        scheduler_config=read_json(folder / "scheduler" / "scheduler_config.json"),
        dtype=dtype,
        device=device,
        unconditional_forward=index.get("is_distilled") is not True,
    )


def encode_prompt(components: Components, prompt: PromptText) -> Conditioning:
    """``prompt_embeds`` [1, window, 3 * width]: the layers of each token side by side."""
    read = CHAT.read(components, prompt.text, filled=True)
    hidden = components.modules["text_encoder"](
        **read, output_hidden_states=True, use_cache=False
    ).hidden_states
    tokens = torch.cat([hidden[layer] for layer in TEXT_LAYERS], dim=-1)
    return {"prompt_embeds": tokens.to(components.dtype)}


def set_timesteps(
    components: Components, scheduler: Any, steps: int, width: int, height: int
) -> None:
    """Even sigmas, moved by the picture's size and the number of steps."""
    patch_px = grid_px_of(components.modules["vae"]) * PATCH
    set_flow_timesteps(
        scheduler,
        steps,
        components.device,
        mu=compute_empirical_mu((height // patch_px) * (width // patch_px), steps),
        sigmas=even_sigmas(steps),
    )


def predict(
    components: Components,
    latents: torch.Tensor,
    timesteps: torch.Tensor,
    conditioning: Conditioning,
) -> torch.Tensor:
    """One forward of the transformer over B samples."""
    text = conditioning["prompt_embeds"]
    prediction: torch.Tensor = components.modules["transformer"](
        hidden_states=latents.flatten(2).transpose(1, 2),
        timestep=timesteps.to(latents.dtype) / _TRAIN_TIMESTEPS,
        guidance=None,
        encoder_hidden_states=text,
        txt_ids=_places(1, 1, text.shape[1], latents.device),
        img_ids=_places(latents.shape[-2], latents.shape[-1], 1, latents.device),
        return_dict=False,
    )[0]
    return prediction.transpose(1, 2).reshape(latents.shape)


def _places(rows: int, columns: int, layers: int, device: torch.device) -> torch.Tensor:
    """[rows * columns * layers, 4]: nothing, row, column, place in the text."""
    sides = (torch.arange(count, device=device) for count in (1, rows, columns, layers))
    return torch.cartesian_prod(*sides)


def sample(components: Components, distribution: Any, generator: torch.Generator) -> torch.Tensor:
    """The distribution's middle, 2x2 places as one, in the range that the network works in."""
    del generator
    latents = distribution.mode().to(components.device, components.dtype)
    return _folded(components.modules["vae"], latents)


def enlarge(components: Components, latents: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Between the autoencoder's places, which are four to one of the denoiser's."""
    vae, size = components.modules["vae"], (height * PATCH, width * PATCH)
    places = torch.nn.functional.interpolate(_unfolded(vae, latents), size=size, mode="bilinear")
    return _folded(vae, places)


def decode(components: Components, latents: torch.Tensor) -> torch.Tensor:
    """Latents [1, C, h, w] → picture [1, 3, height, width], in the autoencoder's own dtype."""
    vae = components.modules["vae"]
    picture: torch.Tensor = vae.decode(_unfolded(vae, latents.to(vae.dtype)), return_dict=False)[0]
    return picture


def _folded(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """The autoencoder's latents as the denoiser has them."""
    rows, columns = (side // PATCH for side in latents.shape[-2:])
    patches = to_patches(latents).transpose(1, 2).reshape(1, -1, rows, columns)
    mean, deviation = _range_of(vae, patches)
    return (patches - mean) / deviation


def _unfolded(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """And back."""
    mean, deviation = _range_of(vae, latents)
    patches = (latents * deviation + mean).flatten(2).transpose(1, 2)
    return from_patches(patches, *latents.shape[-2:])


def _range_of(vae: Any, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of each channel, [1, C, 1, 1]."""
    variance = vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps
    return vae.bn.running_mean.view(1, -1, 1, 1).to(like), torch.sqrt(variance).to(like)


FAMILY = Family(
    name="flux2",
    stages={
        "encode_prompt": ("text_encoder",),
        "denoise": ("transformer",),
        "decode": ("vae",),
    },
    load=load,
    encode_prompt=encode_prompt,
    dropped_text=CHAT.dropped_text,
    set_timesteps=set_timesteps,
    prepare_latents=partial(draw_noise, patch=PATCH),
    predict=predict,
    encode=encode_picture,
    sample=sample,
    decode=decode,
    enlarge=enlarge,
    mask_mode="bilinear",
)
