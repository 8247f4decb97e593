"""The tensors that a ControlNet of some config has, on paper: by name, with their shapes. No torch.

As diffusers' ``ControlNetModel`` names and makes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from rockiln.domain.model import DenoiserFacts

Shape = tuple[int, ...]
# A layer: its name, the shape of its weight, and whether it has a bias.
_Layer = tuple[str, Shape, bool]


def controlnet_tensors(facts: DenoiserFacts, config: dict[str, Any]) -> dict[str, Shape]:
    """Name → shape.

    Args:
        facts: of the same config.

    Raises:
        KeyError, TypeError, ValueError: the config leaves something out or says it oddly.
    """
    tensors: dict[str, Shape] = {}
    for name, shape, has_bias in _layers(facts, config):
        tensors[f"{name}.weight"] = shape
        if has_bias:
            tensors[f"{name}.bias"] = shape[:1]
    return tensors


def _layers(facts: DenoiserFacts, config: dict[str, Any]) -> Iterator[_Layer]:
    first, last = facts.channels[0], facts.channels[-1]
    inner = 4 * first
    yield "conv_in", (first, facts.latent_channels, 3, 3), True
    yield from _embedding("time_embedding", first, inner)
    if config.get("addition_embed_type") == "text_time":
        yield from _embedding(
            "add_embedding", int(config["projection_class_embeddings_input_dim"]), inner
        )
    yield from _hint(config, first)
    linear = config.get("use_linear_projection") is True
    present, results = first, [first]
    for level, channels in enumerate(facts.channels):
        block = f"down_blocks.{level}"
        for place in range(facts.layers[level]):
            yield from _resnet(f"{block}.resnets.{place}", present, channels, inner)
            if count := facts.transformer_layers[level]:
                name = f"{block}.attentions.{place}"
                yield from _attention(name, channels, facts.cross_attention_width, count, linear)
            present = channels
            results.append(channels)
        if level < len(facts.channels) - 1:
            yield f"{block}.downsamplers.0.conv", (channels, channels, 3, 3), True
            results.append(channels)
    for place, channels in enumerate(results):
        yield f"controlnet_down_blocks.{place}", (channels, channels, 1, 1), True
    yield "controlnet_mid_block", (last, last, 1, 1), True
    yield from _resnet("mid_block.resnets.0", last, last, inner)
    if count := facts.mid_transformer_layers:
        width = facts.cross_attention_width
        yield from _attention("mid_block.attentions.0", last, width, count, linear)
        yield from _resnet("mid_block.resnets.1", last, last, inner)


def _embedding(name: str, width: int, inner: int) -> Iterator[_Layer]:
    yield f"{name}.linear_1", (inner, width), True
    yield f"{name}.linear_2", (inner, inner), True


def _hint(config: dict[str, Any], channels: int) -> Iterator[_Layer]:
    """What reads the picture that is followed."""
    name, widths = "controlnet_cond_embedding", hint_channels(config)
    yield f"{name}.conv_in", (widths[0], int(config.get("conditioning_channels", 3)), 3, 3), True
    for place, (before, after) in enumerate(pairwise(widths)):
        yield f"{name}.blocks.{2 * place}", (before, before, 3, 3), True
        yield f"{name}.blocks.{2 * place + 1}", (after, before, 3, 3), True
    yield f"{name}.conv_out", (channels, widths[-1], 3, 3), True


def hint_channels(config: dict[str, Any]) -> list[int]:
    """Of the layers that read the picture; each one after the first halves its sides."""
    widths = [int(width) for width in config["conditioning_embedding_out_channels"]]
    if not widths:
        raise ValueError("a picture is read by one layer at least")
    return widths


def _resnet(name: str, before: int, after: int, inner: int) -> Iterator[_Layer]:
    yield f"{name}.norm1", (before,), True
    yield f"{name}.conv1", (after, before, 3, 3), True
    yield f"{name}.time_emb_proj", (after, inner), True
    yield f"{name}.norm2", (after,), True
    yield f"{name}.conv2", (after, after, 3, 3), True
    if before != after:
        yield f"{name}.conv_shortcut", (after, before, 1, 1), True


def _attention(name: str, width: int, text: int, count: int, linear: bool) -> Iterator[_Layer]:
    projection: Shape = (width, width) if linear else (width, width, 1, 1)
    yield f"{name}.norm", (width,), True
    yield f"{name}.proj_in", projection, True
    yield f"{name}.proj_out", projection, True
    for place in range(count):
        block = f"{name}.transformer_blocks.{place}"
        for norm in ("norm1", "norm2", "norm3"):
            yield f"{block}.{norm}", (width,), True
        for kind, read in (("attn1", width), ("attn2", text)):
            yield f"{block}.{kind}.to_q", (width, width), False
            yield f"{block}.{kind}.to_k", (width, read), False
            yield f"{block}.{kind}.to_v", (width, read), False
            yield f"{block}.{kind}.to_out.0", (width, width), True
        yield f"{block}.ff.net.0.proj", (8 * width, width), True
        yield f"{block}.ff.net.2", (width, 4 * width), True
