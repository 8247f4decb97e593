"""The three networks of vista and its scheduler: Stable Diffusion 1.x in miniature."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

SCALING_FACTOR = 0.18215
TOKEN_COUNT = 77
LATENT_CHANNELS = 4
LATENT_FACTOR = 8
TRAIN_TIMESTEPS = 1000


def build_vae(tiny: bool = False) -> AutoencoderKL:
    """AutoencoderKL x8. ``tiny`` builds the smallest one of the same shape, for tests."""
    channels = (8, 8, 8, 8) if tiny else (32, 64, 96, 128)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4 if tiny else 8,
        sample_size=512,
        scaling_factor=SCALING_FACTOR,
    )


def build_unet(tiny: bool = False) -> UNet2DConditionModel:
    channels = (8, 16, 16) if tiny else (64, 128, 128)
    return UNet2DConditionModel(
        sample_size=32,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=channels,
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=16 if tiny else 128,
        norm_num_groups=4 if tiny else 16,
    )


def build_text_encoder(vocabulary_size: int, tiny: bool = False) -> CLIPTextModel:
    width = 16 if tiny else 128
    config = CLIPTextConfig(
        vocab_size=vocabulary_size,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=1 if tiny else 4,
        num_attention_heads=4,
        max_position_embeddings=TOKEN_COUNT,
        hidden_act="quick_gelu",
        projection_dim=width,
        bos_token_id=vocabulary_size - 2,
        eos_token_id=vocabulary_size - 1,
        pad_token_id=vocabulary_size - 1,
    )
    return CLIPTextModel(config)


def build_scheduler() -> DPMSolverMultistepScheduler:
    """DPM-Solver++ 2M, v-prediction.

    The betas end at 0.025, where almost no signal is left (0.6 % in amplitude), so a picture's
    overall brightness is sampled too and no special terminal-SNR flag is needed. ``trailing``
    starts there.
    """
    return DPMSolverMultistepScheduler(
        num_train_timesteps=TRAIN_TIMESTEPS,
        beta_start=0.00085,
        beta_end=0.025,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        algorithm_type="dpmsolver++",
        solver_order=2,
        timestep_spacing="trailing",
    )


def alphas_cumprod(device: torch.device) -> torch.Tensor:
    """Cumulative signal power per timestep, [TRAIN_TIMESTEPS] float32."""
    betas = torch.linspace(0.00085**0.5, 0.025**0.5, TRAIN_TIMESTEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0).to(device=device, dtype=torch.float32)
