"""Stable Diffusion 1.x: CLIP text encoder, UNet, KL autoencoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors import SafetensorError
from transformers import CLIPTextModel, CLIPTokenizer

from rockiln.domain.errors import BrokenModelError, InvalidRequestError
from rockiln.engine.families.interface import Components, Conditioning, DroppedText, Family
from rockiln.registry.folder import LAYOUTS, component_weights, read_json
from rockiln.registry.weights import WeightsFile


def load(folder: Path, dtype: torch.dtype, device: torch.device) -> Components:
    """Reads the folder's components into CPU memory. Local files only, safetensors only.

    Raises:
        BrokenModelError: a file is missing or unsound, or the parts do not fit together.
    """
    weights = component_weights(folder, LAYOUTS["sd1"])
    text_encoder = _from_folder(CLIPTextModel, weights["text_encoder"], dtype=dtype)
    # low_cpu_mem_usage needs a library that nothing else here does.
    options = {"torch_dtype": dtype, "low_cpu_mem_usage": False}
    unet = _from_folder(UNet2DConditionModel, weights["unet"], **options)
    vae = _from_folder(AutoencoderKL, weights["vae"], **options)
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenModelError(f"tokenizer: {error}") from error
    _check_fit(text_encoder, unet, vae, tokenizer)
    return Components(
        modules={"text_encoder": text_encoder, "unet": unet, "vae": vae},
        tokenizers={"tokenizer": tokenizer},
        scheduler_config=read_json(folder / "scheduler" / "scheduler_config.json"),
        dtype=dtype,
        device=device,
    )


def encode_prompt(components: Components, text: str) -> Conditioning:
    """``prompt_embeds`` [1, window, width]; what is past the window is dropped."""
    tokenizer = components.tokenizers["tokenizer"]
    text_encoder = components.modules["text_encoder"]
    tokens = tokenizer(
        text,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    hidden = text_encoder(tokens.input_ids.to(components.device), attention_mask=None)[0]
    return {"prompt_embeds": hidden.to(components.dtype)}


def dropped_text(components: Components, text: str) -> DroppedText | None:
    """The end of ``text`` that the window of tokens (start and end mark included) leaves out."""
    tokenizer = components.tokenizers["tokenizer"]
    tokens = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    window = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
    if len(tokens) <= window:
        return None
    rest = tokens[window:]
    return DroppedText(tokens=len(rest), window_tokens=window, text=tokenizer.decode(rest).strip())


def prepare_latents(
    components: Components,
    width: int,
    height: int,
    generator: torch.Generator,
    noise_scale: float | torch.Tensor,
) -> torch.Tensor:
    """Noise [1, C, height/8, width/8], drawn where the generator is and moved to the device."""
    vae = components.modules["vae"]
    grid_px = _grid_px(vae)
    if width % grid_px or height % grid_px:
        raise InvalidRequestError(f"{width}x{height} px is not on this model's {grid_px} px grid")
    shape = (1, vae.config.latent_channels, height // grid_px, width // grid_px)
    noise = torch.randn(shape, generator=generator, dtype=components.dtype)
    return noise.to(components.device) * noise_scale


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


def decode(components: Components, latents: torch.Tensor) -> torch.Tensor:
    """Latents [1, C, h, w] → picture [1, 3, height, width]."""
    vae = components.modules["vae"]
    picture: torch.Tensor = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    return picture


def _grid_px(vae: Any) -> int:
    """Pixels per latent along one side."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def _from_folder(kind: Any, weights: WeightsFile, **options: Any) -> Any:
    """An instance of ``kind`` with every weight from ``weights`` and none made up."""
    folder = weights.path.parent
    variant = "fp16" if weights.path.stem.endswith(".fp16") else None
    try:
        module, report = kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            variant=variant,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise BrokenModelError(f"{folder.name}: {error}") from error
    # Both libraries fill such weights with random numbers and go on.
    absent = [*report["missing_keys"], *(str(key) for key in report["mismatched_keys"])]
    if absent:
        raise BrokenModelError(
            f"{folder.name}: {len(absent)} weights are missing or of another shape, "
            f"such as {min(absent)}"
        )
    return module.eval().requires_grad_(requires_grad=False)


def _check_fit(text_encoder: Any, unet: Any, vae: Any, tokenizer: Any) -> None:
    """Raises BrokenModelError where the parts are sound but are not an SD 1.x together."""
    if unet.config.in_channels != vae.config.latent_channels:
        raise BrokenModelError(
            f"unet takes {unet.config.in_channels} channels, the vae makes "
            f"{vae.config.latent_channels}: an inpainting or other variant"
        )
    if unet.config.time_cond_proj_dim is not None:
        raise BrokenModelError("unet is guidance-distilled (time_cond_proj_dim); not run yet")
    if unet.config.cross_attention_dim != text_encoder.config.hidden_size:
        raise BrokenModelError(
            f"unet reads text of width {unet.config.cross_attention_dim}, the text encoder "
            f"writes {text_encoder.config.hidden_size}"
        )
    window, positions = tokenizer.model_max_length, text_encoder.config.max_position_embeddings
    if window > positions or len(tokenizer) > text_encoder.config.vocab_size:
        raise BrokenModelError(
            f"tokenizer (window {window}, {len(tokenizer)} tokens) does not fit the text encoder "
            f"({positions} positions, {text_encoder.config.vocab_size} tokens)"
        )


FAMILY = Family(
    name="sd1",
    stages={"encode_prompt": ("text_encoder",), "denoise": ("unet",), "decode": ("vae",)},
    load=load,
    encode_prompt=encode_prompt,
    dropped_text=dropped_text,
    prepare_latents=prepare_latents,
    predict=predict,
    decode=decode,
)
