"""A tiny SDXL model folder with random weights, as ``tiny_sd1``."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from support.tiny_sd1 import (
    make_scheduler,
    make_text_config,
    make_tokenizer,
    make_vae,
    save_parts,
    write_json,
)


def make_tiny_sdxl(folder: Path, *, seed: int = 0) -> Path:
    """Writes the model to ``folder`` (made if missing) and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = {
            "text_encoder": CLIPTextModel(make_text_config(tokenizer)),
            "text_encoder_2": CLIPTextModelWithProjection(make_text_config(tokenizer)),
            "unet": UNet2DConditionModel(
                sample_size=8,
                block_out_channels=(16, 32),
                layers_per_block=1,
                norm_num_groups=8,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                cross_attention_dim=64,
                attention_head_dim=(2, 4),
                use_linear_projection=True,
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                transformer_layers_per_block=(1, 2),
                projection_class_embeddings_input_dim=32 + 6 * 8,
            ),
            "vae": make_vae(),
        }
    save_parts(
        folder, tokenizer=tokenizer, tokenizer_2=tokenizer, scheduler=make_scheduler(), **parts
    )
    write_json(
        folder / "model_index.json",
        {
            "_class_name": "StableDiffusionXLPipeline",
            "force_zeros_for_empty_prompt": True,
            "scheduler": ["diffusers", "DDIMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )
    return folder
