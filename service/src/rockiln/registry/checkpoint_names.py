"""The names that tensors have in single-file checkpoints of Stable Diffusion, from diffusers' ones.

Only to judge a file by its header; what is loaded goes through diffusers' own conversion.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

# Of each component that has weights, by kind of file: what its tensors' names begin with in it.
PREFIXES: dict[str, dict[str, str]] = {
    "sd1": {
        "text_encoder": "cond_stage_model.transformer.",
        "unet": "model.diffusion_model.",
        "vae": "first_stage_model.",
    },
    "sd2": {
        "text_encoder": "cond_stage_model.model.",
        "unet": "model.diffusion_model.",
        "vae": "first_stage_model.",
    },
    "sdxl": {
        "text_encoder": "conditioner.embedders.0.transformer.",
        "text_encoder_2": "conditioner.embedders.1.model.",
        "unet": "model.diffusion_model.",
        "vae": "first_stage_model.",
    },
}
# Kind of file → family of models.
FAMILIES = {"sd1": "sd1", "sd2": "sd1", "sdxl": "sdxl"}
_Rename = Callable[[str, Shape], tuple[str, Shape]]
_Rules = tuple[tuple[str, str], ...]

_UNET_ENDS: _Rules = (
    ("time_embedding.linear_1.", "time_embed.0."),
    ("time_embedding.linear_2.", "time_embed.2."),
    ("add_embedding.linear_1.", "label_emb.0.0."),
    ("add_embedding.linear_2.", "label_emb.0.2."),
    ("conv_in.", "input_blocks.0.0."),
    ("conv_norm_out.", "out.0."),
    ("conv_out.", "out.2."),
)
_UNET_RESNET: _Rules = (
    ("norm1.", "in_layers.0."),
    ("conv1.", "in_layers.2."),
    ("time_emb_proj.", "emb_layers.1."),
    ("norm2.", "out_layers.0."),
    ("conv2.", "out_layers.3."),
    ("conv_shortcut.", "skip_connection."),
)
_UNET_PART = re.compile(
    r"(down|up|mid)_blocks?\.(?:(\d+)\.)?(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)"
)
_VAE_PART = re.compile(
    r"(encoder|decoder)\.(down|up|mid)_blocks?\.(?:(\d+)\.)?"
    r"(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)"
)
_VAE_ATTENTION: _Rules = (
    ("group_norm.", "norm."),
    ("to_q.", "q."),
    ("to_k.", "k."),
    ("to_v.", "v."),
    ("to_out.0.", "proj_out."),
)
_OPEN_CLIP: _Rules = (
    ("embeddings.token_embedding.weight", "token_embedding.weight"),
    ("embeddings.position_embedding.weight", "positional_embedding"),
    ("final_layer_norm.", "ln_final."),
    ("text_projection.weight", "text_projection"),
    ("encoder.layers.", "transformer.resblocks."),
)
_OPEN_CLIP_LAYER: _Rules = (
    (".self_attn.out_proj.", ".attn.out_proj."),
    (".layer_norm1.", ".ln_1."),
    (".layer_norm2.", ".ln_2."),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
)
_OPEN_CLIP_JOINED = re.compile(r"\.self_attn\.([qkv])_proj\.(weight|bias)$")


def is_open_clip(prefix: str) -> bool:
    """Whether a text encoder whose names begin so has them as OpenCLIP does."""
    return prefix.endswith(".model.")


def original_shapes(kind: str, component: str, shapes: Shapes) -> dict[str, Shape]:
    """What a file holds for a component that has tensors of these names and shapes in diffusers.

    Raises:
        KeyError: a tensor that has no place in such files.
    """
    prefix = PREFIXES[kind][component]
    if component == "unet":
        rename = _unet(shapes)
    elif component == "vae":
        rename = _vae(shapes)
    else:
        rename = _open_clip if is_open_clip(prefix) else _clip
    found = {}
    for name, shape in shapes.items():
        if name.endswith("position_ids"):
            continue  # a table that older versions of the libraries kept
        original, kept = rename(name, shape)
        found[prefix + original] = kept
    return found


def _unet(shapes: Shapes) -> _Rename:
    parts = [match for match in map(_UNET_PART.fullmatch, shapes) if match]
    per_level = 1 + max(
        (int(part[4]) for part in parts if (part[1], part[3]) == ("down", "resnets")), default=0
    )
    attending = {part[2] for part in parts if (part[1], part[3]) == ("up", "attentions")}

    def rename(name: str, shape: Shape) -> tuple[str, Shape]:
        part = _UNET_PART.fullmatch(name)
        if part is None:
            return _begin(name, _UNET_ENDS), shape
        side, kind, number, rest = part[1], part[3], int(part[4]), part[5]
        if kind == "resnets":
            rest = _begin(rest, _UNET_RESNET)
        if side == "mid":
            place = 2 * number if kind == "resnets" else 2 * number + 1
            return f"middle_block.{place}.{rest}", shape
        level = int(part[2])
        if kind == "downsamplers":
            original = f"input_blocks.{(level + 1) * (per_level + 1)}.0.{_begin(rest, _DOWN)}"
        elif kind == "upsamplers":
            place = 2 if part[2] in attending else 1
            original = f"output_blocks.{level * (per_level + 1) + per_level}.{place}.{rest}"
        else:
            place = 0 if kind == "resnets" else 1
            blocks, first = ("input_blocks", 1) if side == "down" else ("output_blocks", 0)
            block = first + level * (per_level + 1) + number
            original = f"{blocks}.{block}.{place}.{rest}"
        return original, shape

    return rename


_DOWN: _Rules = (("conv.", "op."),)


def _vae(shapes: Shapes) -> _Rename:
    levels = 1 + max(
        (int(part[3]) for part in map(_VAE_PART.fullmatch, shapes) if part and part[2] == "up"),
        default=0,
    )

    def rename(name: str, shape: Shape) -> tuple[str, Shape]:
        part = _VAE_PART.fullmatch(name)
        if part is None:
            return name.replace("conv_norm_out.", "norm_out."), shape
        half, side, kind, number, rest = part[1], part[2], part[4], int(part[5]), part[6]
        if kind == "attentions":
            # A convolution of one pixel in the file, a matrix in diffusers.
            kept = (*shape, 1, 1) if len(shape) == len(("out", "in")) else shape
            return f"{half}.mid.attn_{number + 1}.{_begin(rest, _VAE_ATTENTION)}", kept
        rest = rest.replace("conv_shortcut.", "nin_shortcut.")
        if side == "mid":
            return f"{half}.mid.block_{number + 1}.{rest}", shape
        level = int(part[3]) if side == "down" else levels - 1 - int(part[3])
        place = {
            "resnets": f"block.{number}",
            "downsamplers": "downsample",
            "upsamplers": "upsample",
        }[kind]
        return f"{half}.{side}.{level}.{place}.{rest}", shape

    return rename


def _clip(name: str, shape: Shape) -> tuple[str, Shape]:
    return f"text_model.{name.removeprefix('text_model.')}", shape


def _open_clip(name: str, shape: Shape) -> tuple[str, Shape]:
    """Queries, keys and values are one tensor there."""
    name = _begin(name.removeprefix("text_model."), _OPEN_CLIP)
    joined = _OPEN_CLIP_JOINED.search(name)
    if joined is not None:
        return f"{name[: joined.start()]}.attn.in_proj_{joined[2]}", (3 * shape[0], *shape[1:])
    for ours, theirs in _OPEN_CLIP_LAYER:
        name = name.replace(ours, theirs)
    return name, shape


def _begin(name: str, rules: Iterable[tuple[str, str]]) -> str:
    """``name`` with the beginning that a rule gives it. Raises KeyError if none does."""
    for ours, theirs in rules:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise KeyError(name)
