"""A tiny SD 1.x model folder with random weights: real classes, made in about a second.

The same seed gives the same files. The pictures are noise, but noise that depends on prompt, seed,
scheduler and every setting, so it serves wherever the machinery is tested and not the art.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

WINDOW_TOKENS = 77
_WORDS = ("red", "boat", "lake", "snow", "mountains", "sunset", "tree", "house", "night", "a", "on")
_START, _END = "<|startoftext|>", "<|endoftext|>"

MANIFEST: dict[str, Any] = {
    "schema": 1,
    "title": "Tiny",
    "licence": "MIT",
    "defaults": {
        "width": 64,
        "height": 64,
        "num_inference_steps": 4,
        "guidance_scale": 5.0,
        "scheduler": "dpmpp_2m",
    },
    "limits": {"min_side_px": 64, "max_side_px": 1024},
}


def make_tiny_sd1(folder: Path, *, seed: int = 0) -> Path:
    """Writes the model to ``folder`` (made if missing) and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text_encoder = CLIPTextModel(make_text_config(tokenizer))
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(16, 32),
            layers_per_block=1,
            norm_num_groups=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=32,
            attention_head_dim=4,
        )
        vae = make_vae()
    save_parts(
        folder, tokenizer=tokenizer, text_encoder=text_encoder, unet=unet, vae=vae,
        scheduler=make_scheduler(),
    )  # fmt: skip
    write_json(
        folder / "model_index.json",
        {
            "_class_name": "StableDiffusionPipeline",
            "_diffusers_version": "0.42.1",
            "feature_extractor": [None, None],
            "safety_checker": [None, None],
            "requires_safety_checker": False,
            "scheduler": ["diffusers", "DDIMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )
    return folder


def save_parts(folder: Path, **parts: Any) -> None:
    """Each part into its folder, and the manifest."""
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    write_json(folder / "rockiln.json", MANIFEST)
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)  # the libraries write weights for the owner's eyes only


def make_text_config(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    """Of a text encoder that is 32 numbers wide."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=WINDOW_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        projection_dim=32,
    )


def make_vae() -> AutoencoderKL:
    """4 channels, an eighth of each side."""
    return AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=64,
    )


def make_scheduler() -> DDIMScheduler:
    """With the noise schedule of Stable Diffusion."""
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def make_tokenizer() -> CLIPTokenizer:
    """Letters, digits and a few words; anything else becomes the end token."""
    characters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    pieces = [*characters, *(f"{character}</w>" for character in characters)]
    merges: list[tuple[str, str]] = []
    for word in _WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts[:2] = ["".join(parts[:2])]
            pieces.append(parts[0])
    vocabulary = {piece: place for place, piece in enumerate(dict.fromkeys(pieces))}
    for special in (_START, _END):
        vocabulary[special] = len(vocabulary)
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=list(dict.fromkeys(merges)),
        model_max_length=WINDOW_TOKENS,
    )


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    import sys

    make_tiny_sd1(Path(sys.argv[1]))
