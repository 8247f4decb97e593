"""The tensors of FLUX.1's and SD3's transformer: original names and diffusers' ones, with shapes.

And those of their text encoder T5, as llama.cpp and transformers name them. From a component's
config alone: no weights are needed to say what a file of them has to hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from rockiln.domain.errors import BrokenModelError

Shape = tuple[int, ...]
Config = Mapping[str, Any]
Part = tuple[str, Shape]
_TIMESTEP_WIDTH = 256
_MLP_RATIO = 4
# FLUX.1 has 780; a config may say anything.
_TENSORS_MAX = 20_000
PREFIX = "model.diffusion_model."


@dataclass(frozen=True)
class NamedTensor:
    """One tensor of the original file.

    Attributes:
        parts: what diffusers makes of it, one after the other along the first dimension.
        swapped: its halves change places: shift before scale there, after it here.
        table: rows of it are looked up; it does not stay in few bits.
    """

    original: str
    parts: tuple[Part, ...]
    swapped: bool = False
    table: bool = False

    @property
    def shape(self) -> Shape:
        """In the original file."""
        return (sum(shape[0] for _, shape in self.parts), *self.parts[0][1][1:])


def transformer_tensors(config: Config, family: str) -> list[NamedTensor]:
    """All of a transformer with this config.

    Args:
        family: of the model, or T5.

    Raises:
        BrokenModelError: the family has none here, or the config leaves something out.
    """
    if family not in _TENSORS:
        raise BrokenModelError(
            f"a transformer by its original names is read for {' and '.join(FAMILIES)} only"
        )
    try:
        found = list(islice(_TENSORS[family](config), _TENSORS_MAX + 1))
        if len(found) > _TENSORS_MAX:
            raise ValueError("so many layers has none")
    except (KeyError, TypeError, ValueError) as error:
        raise BrokenModelError(
            f"the config.json of a {family} transformer does not tell its shape: {error}"
        ) from None
    return found


def diffusers_shapes(tensors: list[NamedTensor]) -> dict[str, Shape]:
    """Name → shape, as a folder's own weights would have them."""
    return {name: shape for tensor in tensors for name, shape in tensor.parts}


def _flux(config: Config) -> Iterator[NamedTensor]:
    head = int(config["attention_head_dim"])
    width = int(config["num_attention_heads"]) * head
    channels = int(config["in_channels"])
    embedders = {"time_in": ("timestep_embedder", _TIMESTEP_WIDTH)}
    embedders["vector_in"] = ("text_embedder", int(config["pooled_projection_dim"]))
    if config.get("guidance_embeds", False):
        embedders["guidance_in"] = ("guidance_embedder", _TIMESTEP_WIDTH)
    for original, (name, inner) in embedders.items():
        place = f"time_text_embed.{name}"
        yield from _layer(f"{original}.in_layer", f"{place}.linear_1", width, inner)
        yield from _layer(f"{original}.out_layer", f"{place}.linear_2", width, width)
    yield from _layer("img_in", "x_embedder", width, channels)
    yield from _layer("txt_in", "context_embedder", width, int(config["joint_attention_dim"]))
    for index in range(int(config["num_layers"])):
        yield from _double_block(
            f"double_blocks.{index}", f"transformer_blocks.{index}", width, head
        )
    for index in range(int(config["num_single_layers"])):
        block, place = f"single_blocks.{index}", f"single_transformer_blocks.{index}"
        yield from _layer(f"{block}.modulation.lin", f"{place}.norm.linear", 3 * width, width)
        joined = [(f"{place}.attn.to_{part}", width) for part in "qkv"]
        joined.append((f"{place}.proj_mlp", _MLP_RATIO * width))
        yield from _joined(f"{block}.linear1", joined, width)
        yield from _layer(f"{block}.linear2", f"{place}.proj_out", width, (_MLP_RATIO + 1) * width)
        for part, name in (("query", "norm_q"), ("key", "norm_k")):
            yield _vector(f"{block}.norm.{part}_norm.scale", f"{place}.attn.{name}.weight", head)
    # The patches are made outside of the network, so that it writes what it reads.
    out = int(config.get("out_channels") or channels) * int(config.get("patch_size", 1)) ** 2
    yield from _ends(out, width)


def _double_block(block: str, place: str, width: int, head: int) -> Iterator[NamedTensor]:
    sides = (
        ("img", "", ("to_q", "to_k", "to_v"), "to_out.0", ("norm_q", "norm_k")),
        ("txt", "_context", ("add_q_proj", "add_k_proj", "add_v_proj"), "to_add_out",
         ("norm_added_q", "norm_added_k")),
    )  # fmt: skip
    for side, suffix, inner, out, norms in sides:
        yield from _layer(
            f"{block}.{side}_mod.lin", f"{place}.norm1{suffix}.linear", 6 * width, width
        )
        joined = [(f"{place}.attn.{name}", width) for name in inner]
        yield from _joined(f"{block}.{side}_attn.qkv", joined, width)
        yield from _layer(f"{block}.{side}_attn.proj", f"{place}.attn.{out}", width, width)
        for part, name in zip(("query", "key"), norms, strict=True):
            original = f"{block}.{side}_attn.norm.{part}_norm.scale"
            yield _vector(original, f"{place}.attn.{name}.weight", head)
        yield from _feed_forward(
            (f"{block}.{side}_mlp.0", f"{block}.{side}_mlp.2"), f"{place}.ff{suffix}", width
        )


def _sd3(config: Config) -> Iterator[NamedTensor]:
    head = int(config["attention_head_dim"])
    width = int(config["num_attention_heads"]) * head
    patch, channels = int(config["patch_size"]), int(config["in_channels"])
    places = int(config["pos_embed_max_size"]) ** 2
    yield NamedTensor("pos_embed", (("pos_embed.pos_embed", (1, places, width)),))
    patches = ("pos_embed.proj.weight", (width, channels, patch, patch))
    yield NamedTensor("x_embedder.proj.weight", (patches,))
    yield _vector("x_embedder.proj.bias", "pos_embed.proj.bias", width)
    for original, name, inner in (
        ("t_embedder", "timestep_embedder", _TIMESTEP_WIDTH),
        ("y_embedder", "text_embedder", int(config["pooled_projection_dim"])),
    ):
        place = f"time_text_embed.{name}"
        yield from _layer(f"{original}.mlp.0", f"{place}.linear_1", width, inner)
        yield from _layer(f"{original}.mlp.2", f"{place}.linear_2", width, width)
    yield from _layer(
        "context_embedder", "context_embedder", width, int(config["joint_attention_dim"])
    )
    layers, normed = int(config["num_layers"]), bool(config.get("qk_norm"))
    dual = {int(index) for index in config.get("dual_attention_layers") or ()}
    for index in range(layers):
        block, place = f"joint_blocks.{index}", f"transformer_blocks.{index}"
        picture, text = f"{block}.x_block", f"{block}.context_block"
        last = index == layers - 1
        names = ("to_q", "to_k", "to_v", "to_out.0", "norm_q", "norm_k")
        yield from _attention(
            f"{picture}.attn", f"{place}.attn", names, width, head if normed else 0
        )
        if index in dual:
            yield from _attention(
                f"{picture}.attn2", f"{place}.attn2", names, width, head if normed else 0
            )
        names = ("add_q_proj", "add_k_proj", "add_v_proj", "" if last else "to_add_out",
                 "norm_added_q", "norm_added_k")  # fmt: skip
        yield from _attention(f"{text}.attn", f"{place}.attn", names, width, head if normed else 0)
        yield from _layer(
            f"{picture}.adaLN_modulation.1",
            f"{place}.norm1.linear",
            (9 if index in dual else 6) * width,
            width,
        )
        yield from _layer(
            f"{text}.adaLN_modulation.1",
            f"{place}.norm1_context.linear",
            (2 if last else 6) * width,
            width,
            swapped=last,
        )
        yield from _feed_forward((f"{picture}.mlp.fc1", f"{picture}.mlp.fc2"), f"{place}.ff", width)
        if not last:
            yield from _feed_forward(
                (f"{text}.mlp.fc1", f"{text}.mlp.fc2"), f"{place}.ff_context", width
            )
    yield from _ends(int(config.get("out_channels") or channels) * patch**2, width)


def _t5(config: Config) -> Iterator[NamedTensor]:
    width, inner = int(config["d_model"]), int(config["d_ff"])
    heads = int(config["num_heads"])
    attention = heads * int(config["d_kv"])
    gated = str(config.get("feed_forward_proj", "relu")).startswith("gated-")
    words: Part = ("shared.weight", (int(config["vocab_size"]), width))
    yield NamedTensor("token_embd.weight", (words,), table=True)
    for index in range(int(config["num_layers"])):
        block, place = f"enc.blk.{index}", f"encoder.block.{index}.layer"
        yield _vector(f"{block}.attn_norm.weight", f"{place}.0.layer_norm.weight", width)
        for part in "qkv":
            name = f"{place}.0.SelfAttention.{part}.weight"
            yield NamedTensor(f"{block}.attn_{part}.weight", ((name, (attention, width)),))
        out: Part = (f"{place}.0.SelfAttention.o.weight", (width, attention))
        yield NamedTensor(f"{block}.attn_o.weight", (out,))
        if index == 0:
            buckets = int(config.get("relative_attention_num_buckets", 32))
            name = f"{place}.0.SelfAttention.relative_attention_bias.weight"
            yield NamedTensor(f"{block}.attn_rel_b.weight", ((name, (buckets, heads)),), table=True)
        yield _vector(f"{block}.ffn_norm.weight", f"{place}.1.layer_norm.weight", width)
        layers = {"ffn_gate": "wi_0", "ffn_up": "wi_1"} if gated else {"ffn_up": "wi"}
        for original, name in layers.items():
            part_of: Part = (f"{place}.1.DenseReluDense.{name}.weight", (inner, width))
            yield NamedTensor(f"{block}.{original}.weight", (part_of,))
        down: Part = (f"{place}.1.DenseReluDense.wo.weight", (width, inner))
        yield NamedTensor(f"{block}.ffn_down.weight", (down,))
    yield _vector("enc.output_norm.weight", "encoder.final_layer_norm.weight", width)


def _attention(
    original: str, place: str, names: tuple[str, ...], width: int, normed: int
) -> Iterator[NamedTensor]:
    """``names``: queries, keys, values, output ("" where there is none), norms of queries, keys."""
    yield from _joined(f"{original}.qkv", [(f"{place}.{name}", width) for name in names[:3]], width)
    if names[3]:
        yield from _layer(f"{original}.proj", f"{place}.{names[3]}", width, width)
    if normed:
        yield _vector(f"{original}.ln_q.weight", f"{place}.{names[4]}.weight", normed)
        yield _vector(f"{original}.ln_k.weight", f"{place}.{names[5]}.weight", normed)


def _feed_forward(originals: tuple[str, str], place: str, width: int) -> Iterator[NamedTensor]:
    inner = _MLP_RATIO * width
    yield from _layer(originals[0], f"{place}.net.0.proj", inner, width)
    yield from _layer(originals[1], f"{place}.net.2", width, inner)


def _ends(out: int, width: int) -> Iterator[NamedTensor]:
    yield from _layer("final_layer.linear", "proj_out", out, width)
    yield from _layer(
        "final_layer.adaLN_modulation.1", "norm_out.linear", 2 * width, width, swapped=True
    )


def _layer(
    original: str, name: str, out: int, inner: int, *, swapped: bool = False
) -> Iterator[NamedTensor]:
    yield NamedTensor(f"{original}.weight", ((f"{name}.weight", (out, inner)),), swapped)
    yield NamedTensor(f"{original}.bias", ((f"{name}.bias", (out,)),), swapped)


def _joined(original: str, parts: list[tuple[str, int]], inner: int) -> Iterator[NamedTensor]:
    yield NamedTensor(
        f"{original}.weight", tuple((f"{name}.weight", (out, inner)) for name, out in parts)
    )
    yield NamedTensor(f"{original}.bias", tuple((f"{name}.bias", (out,)) for name, out in parts))


def _vector(original: str, name: str, length: int) -> NamedTensor:
    return NamedTensor(original, ((name, (length,)),))


FAMILIES = {"flux": _flux, "sd3": _sd3}
T5 = "t5"
_TENSORS = {**FAMILIES, T5: _t5}
