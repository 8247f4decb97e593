"""Qwen-Image: the language half of Qwen2.5-VL for the text, MMDiT, an autoencoder of films."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from transformers import Qwen2_5_VLForConditionalGeneration

from rockiln.domain.quantisation import NONE
from rockiln.engine.families.interface import (
    Components,
    Conditioning,
    Family,
    PromptText,
)
from rockiln.engine.families.latents import draw_noise
from rockiln.engine.families.loading import (
    check_widths,
    load_module,
    load_qwen_tokenizer,
    model_weights,
)
from rockiln.engine.families.patches import PATCH, from_patches, to_patches
from rockiln.engine.families.qwen_text import ANSWER, USER, Chat, fill_up
from rockiln.engine.families.timesteps import even_sigmas, picture_shift, set_flow_timesteps
from rockiln.registry.json_file import read_json

TEXT_TOKENS = 512
_SKIPPED_TOKENS = 34  # of what stands before the prompt, as Qwen's tokenizer counts
CHAT = Chat(
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, "
    "quantity, text, spatial relationships of the objects and background:<|im_end|>\n" + USER,
    ANSWER,
    window_tokens=TEXT_TOKENS + _SKIPPED_TOKENS,
)
_MAX_SHIFT = 1.15
_TRAIN_TIMESTEPS = 1000


def load(
    folder: Path,
    dtype: torch.dtype,
    device: torch.device,
    checkpoint: Path | None = None,
    quantisation: Mapping[str, str] = NONE,
) -> Components:
    """Reads the folder's components into CPU memory; what the text encoder sees with is dropped.

    Raises:
        BrokenModelError: a file is missing or unsound, or the parts do not fit together.
    """
    weights = model_weights(folder, "qwen_image", checkpoint, quantisation)
    whole = load_module(Qwen2_5_VLForConditionalGeneration, weights["text_encoder"], dtype)
    text_encoder = whole.model.language_model
    transformer = load_module(QwenImageTransformer2DModel, weights["transformer"], dtype)
    vae = load_module(AutoencoderKLQwenImage, weights["vae"], dtype)
    check_widths(
        (transformer.config.in_channels, vae.config.z_dim * PATCH**2, "latent channels"),
        (
            transformer.config.joint_attention_dim,
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
    """``prompt_embeds`` [1, 512, width], and ``tokens`` [1], how many of them are read."""
    read = CHAT.read(components, prompt.text, filled=False)
    hidden = components.modules["text_encoder"](**read, use_cache=False).last_hidden_state
    return fill_up(hidden[:, _SKIPPED_TOKENS:].to(components.dtype), TEXT_TOKENS)


def set_timesteps(
    components: Components, scheduler: Any, steps: int, width: int, height: int
) -> None:
    """Even sigmas, moved by the picture's size where the scheduler's config asks for it."""
    mu = picture_shift(components, width, height, patch=PATCH, most=_MAX_SHIFT)
    set_flow_timesteps(scheduler, steps, components.device, mu=mu, sigmas=even_sigmas(steps))


def predict(
    components: Components,
    latents: torch.Tensor,
    timesteps: torch.Tensor,
    conditioning: Conditioning,
) -> torch.Tensor:
    """A forward for all samples whose text has one length: nothing is filled up and masked."""
    counts = conditioning["tokens"].tolist()
    predictions: dict[int, torch.Tensor] = {}
    for count in dict.fromkeys(counts):
        places = [place for place, other in enumerate(counts) if other == count]
        made = _forward(
            components,
            latents[places],
            timesteps[places],
            conditioning["prompt_embeds"][places, :count],
        )
        predictions |= dict(zip(places, made, strict=True))
    return torch.stack([predictions[place] for place in range(len(counts))])


def _forward(
    components: Components, latents: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor
) -> torch.Tensor:
    rows, columns = (side // PATCH for side in latents.shape[-2:])
    prediction = components.modules["transformer"](
        hidden_states=to_patches(latents),
        timestep=timesteps.to(latents.dtype) / _TRAIN_TIMESTEPS,
        encoder_hidden_states=text,
        img_shapes=[[(1, rows, columns)]] * len(latents),
        return_dict=False,
    )[0]
    return from_patches(prediction, rows, columns)


def guide(conditional: torch.Tensor, unconditional: torch.Tensor, scale: float) -> torch.Tensor:
    """The usual guidance, each patch of it as long as without."""
    guided = unconditional + scale * (conditional - unconditional)
    patches = to_patches(guided)
    wanted = torch.norm(to_patches(conditional), dim=-1, keepdim=True)
    patches = patches * (wanted / torch.norm(patches, dim=-1, keepdim=True))
    return from_patches(patches, *(side // PATCH for side in guided.shape[-2:]))


def encode(components: Components, picture: torch.Tensor) -> Any:
    """Picture [1, 3, height, width] in -1..1, as a film of one → a distribution of latents."""
    vae = components.modules["vae"]
    weights = next(vae.parameters())
    return vae.encode(picture.to(weights.device, weights.dtype).unsqueeze(2)).latent_dist


def sample(components: Components, distribution: Any, generator: torch.Generator) -> torch.Tensor:
    """Latents [1, C, h, w] as the denoiser has them, on the device."""
    latents = distribution.sample(generator).to(components.device, components.dtype).squeeze(2)
    mean, scale = _range_of(components, latents)
    normal: torch.Tensor = (latents - mean) * scale
    return normal


def decode(components: Components, latents: torch.Tensor) -> torch.Tensor:
    """Latents [1, C, h, w] → picture [1, 3, height, width], in the autoencoder's own dtype."""
    vae = components.modules["vae"]
    latents = latents.to(vae.dtype)
    mean, scale = _range_of(components, latents)
    film: torch.Tensor = vae.decode((latents / scale + mean).unsqueeze(2), return_dict=False)[0]
    return film[:, :, 0]


def _range_of(components: Components, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and one over the deviation of each channel, [1, C, 1, 1]."""
    config = components.modules["vae"].config
    mean, deviation = (
        torch.tensor(values).view(1, -1, 1, 1)
        for values in (config.latents_mean, config.latents_std)
    )
    return mean.to(like), (1.0 / deviation).to(like)


FAMILY = Family(
    name="qwen_image",
    stages={
        "encode_prompt": ("text_encoder",),
        "denoise": ("transformer",),
        "decode": ("vae",),
    },
    load=load,
    encode_prompt=encode_prompt,
    dropped_text=CHAT.dropped_text,
    set_timesteps=set_timesteps,
    prepare_latents=draw_noise,
    predict=predict,
    encode=encode,
    sample=sample,
    decode=decode,
    guide=guide,
)
