"""Real-size models on paper: their public configs, their counts of parameters, no weights.

Configs as published in runwayml/stable-diffusion-v1-5, stabilityai/stable-diffusion-xl-base-1.0,
stabilityai/stable-diffusion-3-medium, -3.5-medium and -3.5-large, black-forest-labs/FLUX.1-dev and
FLUX.2-klein-4B, Tongyi-MAI/Z-Image-Turbo and Qwen/Qwen-Image.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from rockiln.domain.model import ControlNetFacts, ModelDefaults, ModelProfile
from rockiln.registry.architecture import architecture_of, unet_facts
from rockiln.registry.controlnet_shapes import controlnet_tensors
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
SD35_LARGE_TRANSFORMER: Config = SD3_TRANSFORMER | {
    "num_layers": 38,
    "num_attention_heads": 38,
    "caption_projection_dim": 2432,
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
FLUX2_TRANSFORMER: Config = {
    "_class_name": "Flux2Transformer2DModel",
    "patch_size": 1,
    "in_channels": 128,
    "num_layers": 5,
    "num_single_layers": 20,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 7680,
    "mlp_ratio": 3.0,
    "guidance_embeds": False,
}
Z_IMAGE_TRANSFORMER: Config = {
    "_class_name": "ZImageTransformer2DModel",
    "in_channels": 16,
    "dim": 3840,
    "n_layers": 30,
    "n_refiner_layers": 2,
    "n_heads": 30,
    "n_kv_heads": 30,
    "cap_feat_dim": 2560,
    "axes_lens": [1536, 512, 512],
}
QWEN_IMAGE_TRANSFORMER: Config = {
    "_class_name": "QwenImageTransformer2DModel",
    "patch_size": 2,
    "in_channels": 64,
    "out_channels": 16,
    "num_layers": 60,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 3584,
}
QWEN3_4B: Config = {
    "hidden_size": 2560,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 9728,
    "max_position_embeddings": 40960,
    "vocab_size": 151936,
}
# The language half of Qwen2.5-VL 7B.
QWEN25_7B: Config = {
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "intermediate_size": 18944,
    "max_position_embeddings": 128000,
    "vocab_size": 152064,
}
FLUX2_VAE: Config = {
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 32,
    "patch_size": [2, 2],
}
FILM_VAE: Config = {"base_dim": 96, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "z_dim": 16}
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
    "sd35-large": {**_SD3_ENCODERS, "transformer": SD35_LARGE_TRANSFORMER, "vae": FLOW_VAE},
    "flux": {
        "text_encoder": CLIP_L,
        "text_encoder_2": T5_XXL,
        "transformer": FLUX_TRANSFORMER,
        "vae": FLOW_VAE,
    },
    "flux2": {"text_encoder": QWEN3_4B, "transformer": FLUX2_TRANSFORMER, "vae": FLUX2_VAE},
    "z_image": {"text_encoder": QWEN3_4B, "transformer": Z_IMAGE_TRANSFORMER, "vae": FLOW_VAE},
    "qwen_image": {
        "text_encoder": QWEN25_7B,
        "transformer": QWEN_IMAGE_TRANSFORMER,
        "vae": FILM_VAE,
    },
}
FAMILY = {
    "sd15": "sd1", "sdxl": "sdxl", "sd3": "sd3", "sd35": "sd3", "sd35-large": "sd3", "flux": "flux",
    "flux2": "flux2", "z_image": "z_image", "qwen_image": "qwen_image",
}  # fmt: skip
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
    "sd35-large": {**_SD3_ENCODER_PARAMETERS, "transformer": 8_056_627_520, "vae": 83_819_683},
    "flux": {
        "text_encoder": 123_060_480,
        "text_encoder_2": 4_762_310_656,
        "transformer": 11_901_408_320,
        "vae": 83_819_683,
    },
    "flux2": {
        "text_encoder": 4_022_468_096, "transformer": 3_875_544_576, "vae": 84_046_115,
    },
    "z_image": {
        "text_encoder": 4_022_468_096, "transformer": 6_154_908_736, "vae": 83_819_683,
    },
    "qwen_image": {
        "text_encoder": 7_070_619_136, "transformer": 20_430_401_088, "vae": 126_892_531,
    },
}  # fmt: skip


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
        half=layout.half,
        architecture=architecture_of(
            configs["unet"] if "unet" in configs else configs["transformer"],
            configs["vae"],
            encoders,
            upcast=name == "sdxl",
        ),
    )


def with_controlnets(name: str, count: int) -> ModelProfile:
    """As the registry would read them from the field's ControlNets of that base."""
    profile = known_profile(name)
    if not count:
        return profile
    config = {**CONFIGS[name]["unet"], "conditioning_embedding_out_channels": [16, 32, 96, 256]}
    shape = unet_facts(config)
    parameters = sum(math.prod(sides) for sides in controlnet_tensors(shape, config).values())
    return replace(profile, controlnets=(ControlNetFacts(parameters, shape, 16),) * count)
