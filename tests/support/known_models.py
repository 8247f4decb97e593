"""Real-size models on paper: their public configs, their counts of parameters, no weights.

Configs as published in runwayml/stable-diffusion-v1-5 and stabilityai/stable-diffusion-xl-base-1.0.
"""

from __future__ import annotations

from typing import Any

from rockiln.domain.model import ModelDefaults, ModelProfile
from rockiln.registry.architecture import architecture_of

Config = dict[str, Any]

VAE: Config = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 512,
}
CLIP_L: Config = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "projection_dim": 768,
}
CLIP_BIGG: Config = {
    "hidden_size": 1280,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "intermediate_size": 5120,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
SD15_UNET: Config = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
}
SDXL_UNET: Config = {
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280],
    "layers_per_block": 2,
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "transformer_layers_per_block": [1, 2, 10],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
}
CONFIGS: dict[str, dict[str, Config]] = {
    "sd15": {"text_encoder": CLIP_L, "unet": SD15_UNET, "vae": VAE},
    "sdxl": {
        "text_encoder": CLIP_L,
        "text_encoder_2": CLIP_BIGG,
        "unet": SDXL_UNET,
        "vae": VAE | {"scaling_factor": 0.13025, "sample_size": 1024, "force_upcast": True},
    },
}
PARAMETERS: dict[str, dict[str, int]] = {
    "sd15": {"text_encoder": 123_060_480, "unet": 859_520_964, "vae": 83_653_863},
    "sdxl": {
        "text_encoder": 123_060_480,
        "text_encoder_2": 694_659_840,
        "unet": 2_567_463_684,
        "vae": 83_653_863,
    },
}


def known_profile(name: str) -> ModelProfile:
    """The profile that the registry would read from the model's folder."""
    configs, native = CONFIGS[name], 1024 if name == "sdxl" else 512
    encoders = [config for part, config in configs.items() if part.startswith("text_encoder")]
    return ModelProfile(
        id=name,
        title=name,
        family="sdxl" if name == "sdxl" else "sd1",
        licence="",
        path="/nowhere",
        defaults=ModelDefaults(native, native, 25, 7.5, "dpmpp_2m"),
        min_side_px=256,
        max_side_px=2048,
        component_bytes={part: 4 * count for part, count in PARAMETERS[name].items()},
        component_parameters=PARAMETERS[name],
        architecture=architecture_of(
            configs["unet"], configs["vae"], encoders, upcast=name == "sdxl"
        ),
    )
