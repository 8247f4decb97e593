"""Real-size models on paper: their public configs, their counts of parameters, no weights.

Configs as published in runwayml/stable-diffusion-v1-5, stabilityai/stable-diffusion-xl-base-1.0,
stabilityai/stable-diffusion-3-medium and -3.5-medium, and black-forest-labs/FLUX.1-dev.
"""

from __future__ import annotations

from typing import Any

from rockiln.domain.model import ModelDefaults, ModelProfile
from rockiln.registry.architecture import architecture_of
from rockiln.registry.layouts import LAYOUTS

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
T5_XXL: Config = {
    "d_model": 4096,
    "d_ff": 10240,
    "d_kv": 64,
    "num_layers": 24,
    "num_heads": 64,
    "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}
SD3_TRANSFORMER: Config = {
    "_class_name": "SD3Transformer2DModel",
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 24,
    "attention_head_dim": 64,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192,
}
SD35_TRANSFORMER: Config = SD3_TRANSFORMER | {
    "pos_embed_max_size": 384,
    "dual_attention_layers": list(range(13)),
    "qk_norm": "rms_norm",
}
FLUX_TRANSFORMER: Config = {
    "_class_name": "FluxTransformer2DModel",
    "patch_size": 1,
    "in_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": True,
    "axes_dims_rope": [16, 56, 56],
}
FLOW_VAE: Config = VAE | {
    "latent_channels": 16,
    "sample_size": 1024,
    "scaling_factor": 1.5305,
    "shift_factor": 0.0609,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
_SD3_ENCODERS = {"text_encoder": CLIP_L, "text_encoder_2": CLIP_BIGG, "text_encoder_3": T5_XXL}
CONFIGS: dict[str, dict[str, Config]] = {
    "sd15": {"text_encoder": CLIP_L, "unet": SD15_UNET, "vae": VAE},
    "sdxl": {
        "text_encoder": CLIP_L,
        "text_encoder_2": CLIP_BIGG,
        "unet": SDXL_UNET,
        "vae": VAE | {"scaling_factor": 0.13025, "sample_size": 1024, "force_upcast": True},
    },
    "sd3": {**_SD3_ENCODERS, "transformer": SD3_TRANSFORMER, "vae": FLOW_VAE},
    "sd35": {**_SD3_ENCODERS, "transformer": SD35_TRANSFORMER, "vae": FLOW_VAE},
    "flux": {
        "text_encoder": CLIP_L,
        "text_encoder_2": T5_XXL,
        "transformer": FLUX_TRANSFORMER,
        "vae": FLOW_VAE,
    },
}
FAMILY = {"sd15": "sd1", "sdxl": "sdxl", "sd3": "sd3", "sd35": "sd3", "flux": "flux"}
_SD3_ENCODER_PARAMETERS = {
    "text_encoder": 123_650_304,
    "text_encoder_2": 694_659_840,
    "text_encoder_3": 4_762_310_656,
}
PARAMETERS: dict[str, dict[str, int]] = {
    "sd15": {"text_encoder": 123_060_480, "unet": 859_520_964, "vae": 83_653_863},
    "sdxl": {
        "text_encoder": 123_060_480,
        "text_encoder_2": 694_659_840,
        "unet": 2_567_463_684,
        "vae": 83_653_863,
    },
    "sd3": {**_SD3_ENCODER_PARAMETERS, "transformer": 2_028_328_000, "vae": 83_819_683},
    "sd35": {**_SD3_ENCODER_PARAMETERS, "transformer": 2_243_171_520, "vae": 83_819_683},
    "flux": {
        "text_encoder": 123_060_480,
        "text_encoder_2": 4_762_310_656,
        "transformer": 11_901_408_320,
        "vae": 83_819_683,
    },
}


def known_profile(name: str) -> ModelProfile:
    """The profile that the registry would read from the model's folder."""
    configs, native = CONFIGS[name], 512 if name == "sd15" else 1024
    layout = LAYOUTS[FAMILY[name]]
    encoders = [config for part, config in configs.items() if part.startswith("text_encoder")]
    return ModelProfile(
        id=name,
        title=name,
        family=layout.name,
        licence="",
        path="/nowhere",
        defaults=ModelDefaults(native, native, 25, 7.5, layout.schedulers[0]),
        min_side_px=256,
        max_side_px=2048,
        component_bytes={part: 4 * count for part, count in PARAMETERS[name].items()},
        component_parameters=PARAMETERS[name],
        side_grid_px=layout.side_grid_px,
        schedulers=layout.schedulers,
        architecture=architecture_of(
            configs["unet"] if "unet" in configs else configs["transformer"],
            configs["vae"],
            encoders,
            upcast=name == "sdxl",
        ),
    )
