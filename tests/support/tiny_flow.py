"""Tiny SD3 and FLUX.1 model folders with random weights, as ``tiny_sd1``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from support.tiny_sd1 import MANIFEST, make_text_config, make_tokenizer, save_parts, write_json

FLOW_MANIFEST: dict[str, Any] = MANIFEST | {
    "defaults": MANIFEST["defaults"] | {"scheduler": "flow_euler"}
}


def make_tiny_sd3(
    folder: Path, *, seed: int = 0, t5: bool = True, shifts: bool = False, inner: int = 37
) -> Path:
    """Writes the model to ``folder`` and returns it.

    Args:
        inner: width of T5's feed-forward.
        t5: with the third text encoder.
        shifts: with timesteps that depend on the picture's size.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer, t5_tokenizer = make_tokenizer(), _t5_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts: dict[str, Any] = {
            "text_encoder": CLIPTextModelWithProjection(make_text_config(tokenizer)),
            "text_encoder_2": CLIPTextModelWithProjection(make_text_config(tokenizer)),
            "transformer": SD3Transformer2DModel(
                sample_size=32,
                patch_size=2,
                in_channels=4,
                num_layers=2,
                attention_head_dim=8,
                num_attention_heads=4,
                joint_attention_dim=64,
                caption_projection_dim=32,
                pooled_projection_dim=64,
                out_channels=4,
                pos_embed_max_size=32,
            ),
            "vae": make_flow_vae(),
            "tokenizer": tokenizer,
            "tokenizer_2": tokenizer,
            "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=shifts),
        }
        if t5:
            parts |= {"text_encoder_3": _t5(t5_tokenizer, 64, inner), "tokenizer_3": t5_tokenizer}
    save_parts(folder, **parts)
    write_json(folder / "rockiln.json", FLOW_MANIFEST)
    absent = [None, None]
    write_json(
        folder / "model_index.json",
        {
            "_class_name": "StableDiffusion3Pipeline",
            "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
            "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "text_encoder_3": ["transformers", "T5EncoderModel"] if t5 else absent,
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "tokenizer_3": ["transformers", "T5TokenizerFast"] if t5 else absent,
            "transformer": ["diffusers", "SD3Transformer2DModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )
    return folder


def make_tiny_flux(folder: Path, *, seed: int = 0, guided: bool = True, inner: int = 37) -> Path:
    """Writes the model to ``folder`` and returns it. ``guided`` as dev is, not as schnell."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer, t5_tokenizer = make_tokenizer(), _t5_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts: dict[str, Any] = {
            "text_encoder": CLIPTextModel(make_text_config(tokenizer)),
            "text_encoder_2": _t5(t5_tokenizer, 32, inner),
            "transformer": FluxTransformer2DModel(
                patch_size=1,
                in_channels=16,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=32,
                pooled_projection_dim=32,
                guidance_embeds=guided,
                axes_dims_rope=(4, 6, 6),
            ),
            "vae": make_flow_vae(),
        }
    save_parts(
        folder,
        tokenizer=tokenizer,
        tokenizer_2=t5_tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=guided),
        **parts,
    )
    write_json(folder / "rockiln.json", FLOW_MANIFEST)
    write_json(
        folder / "model_index.json",
        {
            "_class_name": "FluxPipeline",
            "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "text_encoder_2": ["transformers", "T5EncoderModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "tokenizer_2": ["transformers", "T5TokenizerFast"],
            "transformer": ["diffusers", "FluxTransformer2DModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )
    return folder


def make_flow_vae() -> AutoencoderKL:
    """Without the convolutions around the latents, and with a shift, as both families have it."""
    return AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=64,
        scaling_factor=0.36,
        shift_factor=0.11,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _t5_tokenizer() -> T5TokenizerFast:
    """Letters and digits; anything else is unknown."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -1.0)]
    pieces += [(letter, -2.0) for letter in letters]
    return T5TokenizerFast(vocab=pieces, extra_ids=0)


def _t5(tokenizer: T5TokenizerFast, width: int, inner: int) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=width,
            d_kv=8,
            d_ff=inner,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
        )
    )
