"""A model's shape from its components' configs, for the memory planner. No weights are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
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
QWEN_TOKENS = 512


def architecture_of_parts(
    configs: Mapping[str, Config], family: str, *, distilled: bool = False
) -> Architecture | None:
    """Likewise, of a family's components by their names."""
    return architecture_of(
        configs["unet"] if "unet" in configs else configs["transformer"],
        configs["vae"],
        [config for name, config in configs.items() if name.startswith("text_encoder")],
        upcast=family == "sdxl" and configs["vae"].get("force_upcast", True) is True,
        distilled=distilled,
    )


def architecture_of(
    denoiser: Config,
    vae: Config,
    text_encoders: list[Config],
    *,
    upcast: bool = False,
    distilled: bool = False,
) -> Architecture | None:
    """The shape that the configs describe; None if they leave a fact out or say it oddly.

    A folder without it still works: its memory is then judged as that of a larger model.

    Args:
        upcast: whether the family runs this autoencoder in float32.
        distilled: guidance has been distilled away.
    """
    try:
        shape = _KINDS.get(str(denoiser.get("_class_name")), unet_facts)(denoiser)
        if distilled and isinstance(shape, TransformerFacts):
            shape = replace(shape, unconditional_sample=False)
        return Architecture(
            denoiser=shape,
            decoder=_film_decoder(vae) if "z_dim" in vae else _decoder(vae, upcast=upcast),
            text_encoders=tuple(_text_encoder(config, denoiser) for config in text_encoders),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _decoder(vae: Config, *, upcast: bool) -> DecoderFacts:
    return DecoderFacts(
        channels=_numbers(vae.get("decoder_block_out_channels") or vae["block_out_channels"]),
        layers=int(vae["layers_per_block"]),
        latent_channels=int(vae["latent_channels"]),
        mid_attention=bool(vae.get("mid_block_add_attention", True)),
        upcast=upcast,
    )


def _film_decoder(vae: Config) -> DecoderFacts:
    return DecoderFacts(
        channels=tuple(int(vae["base_dim"]) * times for times in _numbers(vae["dim_mult"])),
        layers=int(vae["num_res_blocks"]),
        latent_channels=int(vae["z_dim"]),
        film=True,
    )


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


_DIFFUSERS_PLACES = 96  # along a side, where a config does not tell


def _sd3(config: Config) -> TransformerFacts:
    heads = int(config["num_attention_heads"])
    width = heads * int(config["attention_head_dim"])
    places = int(config.get("pos_embed_max_size", _DIFFUSERS_PLACES)) ** 2
    dual_blocks = len(config.get("dual_attention_layers") or ())
    return TransformerFacts(
        width=width,
        heads=heads,
        joint_blocks=int(config["num_layers"]),
        dual_blocks=dual_blocks,
        single_blocks=0,
        patch=int(config["patch_size"]),
        text_tokens=CLIP_TOKENS + SD3_T5_TOKENS,
        latent_channels=int(config["in_channels"]),
        rotary=False,
        unconditional_sample=True,
        layer_squares=max(9 if dual_blocks else 6, places / width),
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


def _flux2(config: Config) -> TransformerFacts:
    heads = int(config["num_attention_heads"])
    inner = float(config.get("mlp_ratio", 3.0))
    return TransformerFacts(
        width=heads * int(config["attention_head_dim"]),
        heads=heads,
        joint_blocks=int(config["num_layers"]),
        dual_blocks=0,
        single_blocks=int(config["num_single_layers"]),
        patch=FLUX_PATCH,
        text_tokens=QWEN_TOKENS,
        latent_channels=int(config["in_channels"]),
        rotary=True,
        unconditional_sample=True,
        inner=inner,
        gated=True,
        # What modulates is shared by all blocks: attention and feed-forward are left.
        joint_squares=8 + 2 * 3 * inner,
        single_squares=4 + 3 * inner,
        layer_squares=3 + 2 * inner,
    )


def _z_image(config: Config) -> TransformerFacts:
    width, inner = int(config["dim"]), 8 / 3
    return TransformerFacts(
        width=width,
        heads=int(config["n_heads"]),
        joint_blocks=0,
        dual_blocks=0,
        single_blocks=int(config["n_layers"]) + 2 * int(config["n_refiner_layers"]),
        patch=FLUX_PATCH,
        text_tokens=QWEN_TOKENS,
        latent_channels=int(config["in_channels"]),
        rotary=True,
        unconditional_sample=True,
        inner=inner,
        gated=True,
        in_turn=True,
        single_squares=4 + 3 * inner,
        layer_squares=inner,
    )


def _qwen_image(config: Config) -> TransformerFacts:
    heads = int(config["num_attention_heads"])
    return TransformerFacts(
        width=heads * int(config["attention_head_dim"]),
        heads=heads,
        joint_blocks=int(config["num_layers"]),
        dual_blocks=0,
        single_blocks=0,
        patch=FLUX_PATCH,
        text_tokens=QWEN_TOKENS,
        latent_channels=int(config["in_channels"]) // FLUX_PATCH**2,
        rotary=True,
        unconditional_sample=True,
        held=3,
    )


_KINDS: dict[str, Callable[[Config], DenoiserFacts | TransformerFacts]] = {
    "SD3Transformer2DModel": _sd3,
    "FluxTransformer2DModel": _flux,
    "Flux2Transformer2DModel": _flux2,
    "ZImageTransformer2DModel": _z_image,
    "QwenImageTransformer2DModel": _qwen_image,
}


def _text_encoder(config: Config, denoiser: Config) -> TextEncoderFacts:
    if "d_model" in config:
        short = denoiser.get("_class_name") == "SD3Transformer2DModel"
        width, inner, layers = (int(config[key]) for key in ("d_model", "d_ff", "num_layers"))
        attended = int(config["num_heads"]) * int(config.get("d_kv", 64))
        return TextEncoderFacts(
            width=width,
            layers=layers,
            heads=int(config["num_heads"]),
            inner_width=inner,
            tokens=SD3_T5_TOKENS if short else FLUX_T5_TOKENS,
            float32_parameters=layers * width * inner,  # transformers keeps T5's "wo" so
            block_parameters=width * (4 * attended + 3 * inner),
        )
    config = config.get("text_config", config)
    if "num_key_value_heads" in config:  # a language model, whose table of places is no window
        config = config | {"max_position_embeddings": QWEN_TOKENS}
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
