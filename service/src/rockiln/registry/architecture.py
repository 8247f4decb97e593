"""A model's shape from its components' configs, for the memory planner. No weights are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rockiln.domain.model import (
    Architecture,
    DecoderFacts,
    DenoiserFacts,
    TextEncoderFacts,
    TransformerFacts,
)

Config = dict[str, Any]
# As the families read prompts and cut latents into patches.
CLIP_TOKENS = 77
SD3_T5_TOKENS = 256
FLUX_T5_TOKENS = 512
FLUX_PATCH = 2


def architecture_of(
    denoiser: Config, vae: Config, text_encoders: list[Config], *, upcast: bool = False
) -> Architecture | None:
    """The shape that the configs describe; None if they leave a fact out or say it oddly.

    A folder without it still works: its memory is then judged as that of a larger model.

    Args:
        upcast: whether the family runs this autoencoder in float32.
    """
    try:
        return Architecture(
            denoiser=_KINDS.get(str(denoiser.get("_class_name")), unet_facts)(denoiser),
            decoder=DecoderFacts(
                channels=_numbers(vae["block_out_channels"]),
                layers=int(vae["layers_per_block"]),
                latent_channels=int(vae["latent_channels"]),
                mid_attention=bool(vae.get("mid_block_add_attention", True)),
                upcast=upcast,
            ),
            text_encoders=tuple(_text_encoder(config) for config in text_encoders),
        )
    except (KeyError, TypeError, ValueError):
        return None


def unet_facts(config: Config) -> DenoiserFacts:
    """Of a UNet, or of the half of one that a ControlNet is.

    Raises:
        KeyError, TypeError, ValueError: the config leaves something out or says it oddly.
    """
    channels = _numbers(config["block_out_channels"])
    levels = len(channels)
    layers = _per_level(config.get("layers_per_block", 2), levels)
    blocks = _per_level(config.get("transformer_layers_per_block", 1), levels)
    attends = ["CrossAttn" in name for name in config["down_block_types"]]
    # In this class's configs "attention_head_dim" is the number of heads, an old mix-up.
    heads = config.get("num_attention_heads") or config.get("attention_head_dim", 8)
    mid = config.get("mid_block_type", "UNetMidBlock2DCrossAttn")
    if len(attends) != levels:
        raise ValueError("as many block types as levels")
    return DenoiserFacts(
        channels=channels,
        layers=layers,
        transformer_layers=tuple(
            count if used else 0 for count, used in zip(blocks, attends, strict=True)
        ),
        mid_transformer_layers=blocks[-1] if mid == "UNetMidBlock2DCrossAttn" else 0,
        heads=_per_level(heads, levels),
        cross_attention_width=int(config["cross_attention_dim"]),
        latent_channels=int(config["in_channels"]),
    )


def _sd3(config: Config) -> TransformerFacts:
    heads = int(config["num_attention_heads"])
    return TransformerFacts(
        width=heads * int(config["attention_head_dim"]),
        heads=heads,
        joint_blocks=int(config["num_layers"]),
        dual_blocks=len(config.get("dual_attention_layers") or ()),
        single_blocks=0,
        patch=int(config["patch_size"]),
        text_tokens=CLIP_TOKENS + SD3_T5_TOKENS,
        latent_channels=int(config["in_channels"]),
        rotary=False,
        unconditional_sample=True,
    )


def _flux(config: Config) -> TransformerFacts:
    heads = int(config["num_attention_heads"])
    return TransformerFacts(
        width=heads * int(config["attention_head_dim"]),
        heads=heads,
        joint_blocks=int(config["num_layers"]),
        dual_blocks=0,
        single_blocks=int(config["num_single_layers"]),
        patch=FLUX_PATCH,
        text_tokens=FLUX_T5_TOKENS,
        latent_channels=int(config["in_channels"]) // FLUX_PATCH**2,
        rotary=True,
        unconditional_sample=False,
    )


_KINDS: dict[str, Callable[[Config], DenoiserFacts | TransformerFacts]] = {
    "SD3Transformer2DModel": _sd3,
    "FluxTransformer2DModel": _flux,
}


def _text_encoder(config: Config) -> TextEncoderFacts:
    if "d_model" in config:
        width, inner, layers = (int(config[key]) for key in ("d_model", "d_ff", "num_layers"))
        return TextEncoderFacts(
            width=width,
            layers=layers,
            heads=int(config["num_heads"]),
            inner_width=inner,
            tokens=FLUX_T5_TOKENS,
            float32_parameters=layers * width * inner,  # transformers keeps T5's "wo" so
        )
    return TextEncoderFacts(
        width=int(config["hidden_size"]),
        layers=int(config["num_hidden_layers"]),
        heads=int(config["num_attention_heads"]),
        inner_width=int(config["intermediate_size"]),
        tokens=int(config.get("max_position_embeddings", 77)),
    )


def _numbers(value: Any) -> tuple[int, ...]:
    numbers = tuple(int(number) for number in value)
    if not numbers or min(numbers) < 1:
        raise ValueError("a width is a positive number")
    return numbers


def _per_level(value: Any, levels: int) -> tuple[int, ...]:
    numbers = (int(value),) * levels if isinstance(value, int) else _numbers(value)
    if len(numbers) != levels:
        raise ValueError("one number per level")
    return numbers
