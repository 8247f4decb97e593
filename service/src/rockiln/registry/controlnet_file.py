"""ControlNets in one file, under diffusers' names or the original ones. No torch.

Such a file has no config. The shapes of its tensors tell most of one; the rest (heads, groups of
the norms) no shape shows, and a ControlNet has it from the UNet that it is half a copy of.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from rockiln.domain.errors import BrokenModelError
from rockiln.registry.checkpoint_names import Shape, Shapes
from rockiln.registry.file_gate import check_file
from rockiln.registry.safetensors_file import read_weights_file

_FROM_UNET = (
    "act_fn", "addition_time_embed_dim", "attention_head_dim", "downsample_padding",
    "flip_sin_to_cos", "freq_shift", "mid_block_scale_factor", "norm_eps", "norm_num_groups",
    "num_attention_heads", "upcast_attention",
)  # fmt: skip
# Beginnings of names, original and diffusers'.
_PREFIX = "control_model."
_ENDS = {
    "time_embed.0.": "time_embedding.linear_1.",
    "time_embed.2.": "time_embedding.linear_2.",
    "label_emb.0.0.": "add_embedding.linear_1.",
    "label_emb.0.2.": "add_embedding.linear_2.",
    "input_blocks.0.0.": "conv_in.",
    "middle_block.0.": "mid_block.resnets.0.",
    "middle_block.1.": "mid_block.attentions.0.",
    "middle_block.2.": "mid_block.resnets.1.",
    "middle_block_out.0.": "controlnet_mid_block.",
    "input_hint_block.0.": "controlnet_cond_embedding.conv_in.",
}
_RESNET = {
    "in_layers.0.": "norm1.",
    "in_layers.2.": "conv1.",
    "emb_layers.1.": "time_emb_proj.",
    "out_layers.0.": "norm2.",
    "out_layers.3.": "conv2.",
    "skip_connection.": "conv_shortcut.",
}
_HINT = re.compile(r"input_hint_block\.([0-9]{1,2})\.")
_IN_RESNET = re.compile(r"(?:down_blocks\.\d+|mid_block)\.resnets\.\d+\.")
# Its effect is the mean over the picture, which a config says and no tensor shows.
_POOLED = "shuffle"
_UNREAD_TEXT_WIDTH = 1280  # the class has to have one
_TENSORS_MAX = 5_000  # SDXL's has 844


@dataclass(frozen=True)
class ControlNetFile:
    """One in a single file.

    Attributes:
        config: of diffusers' class, as far as shapes tell it.
        names: of its tensors, in the file → in diffusers.
        shapes: by diffusers' names.
    """

    path: Path
    config: dict[str, Any]
    names: dict[str, str]
    shapes: dict[str, Shape]
    rounded: bool = False

    @property
    def folder(self) -> Path:
        """What a fault of it is told of."""
        return self.path

    @property
    def parameters(self) -> int:
        return sum(map(math.prod, self.shapes.values()))

    def of_unet(self, unet: Mapping[str, Any]) -> ControlNetFile:
        """With the whole config of one that was made from that UNet."""
        lent = {key: unet[key] for key in _FROM_UNET if key in unet}
        return replace(self, config={**self.config, **lent})


def read_controlnet_file(path: Path) -> ControlNetFile:
    """What a file has. Raises BrokenModelError if it is unsound or something else.

    Whether its tensors are all those of that config is not looked at.
    """
    check_file(path, path.parent.parent)
    file = read_weights_file(path)
    if file.foreign_dtypes:
        raise BrokenModelError(f"{path.name} has weights of {', '.join(file.foreign_dtypes)}")
    if len(file.shapes) > _TENSORS_MAX:
        raise BrokenModelError(f"{path.name} has {len(file.shapes)} tensors: too many")
    if _POOLED in path.stem.lower():
        raise BrokenModelError(
            f"{path.name}: a ControlNet for {_POOLED} (global_pool_conditions) is not run"
        )
    names = _diffusers_names(file.shapes)
    shapes = {name: file.shapes[given] for given, name in names.items()}
    if len(shapes) != len(names):
        raise BrokenModelError(f"{path.name}: two tensors are the same one of a ControlNet")
    try:
        config = _config(shapes)
    except KeyError as error:
        raise BrokenModelError(
            f"{path.name} is no ControlNet of Stable Diffusion 1, 2 or XL: there is no "
            f"{error.args[0]} in it"
        ) from None
    return ControlNetFile(path, config, names, shapes)


def _diffusers_names(given: Iterable[str]) -> dict[str, str]:
    """Of a file under diffusers' names they are the same; what is unknown keeps its own."""
    bare = {name: name.removeprefix(_PREFIX) for name in given}
    if "zero_convs.0.0.weight" not in bare.values():
        return {name: name for name in bare}
    begins = dict(_begins(set(bare.values())))
    found = {}
    for name, original in bare.items():
        renamed = _begun(original, begins)
        place = _IN_RESNET.match(renamed)
        if place is not None:
            renamed = place[0] + _begun(renamed.removeprefix(place[0]), _RESNET)
        found[name] = renamed
    return found


def _begins(names: set[str]) -> Iterator[tuple[str, str]]:
    """What the names of a file begin with, and the same in diffusers."""
    yield from _ENDS.items()
    hints = sorted({int(match[1]) for name in names if (match := _HINT.match(name))})
    for place, hint in enumerate(hints[1:-1]):
        yield f"input_hint_block.{hint}.", f"controlnet_cond_embedding.blocks.{place}."
    yield f"input_hint_block.{hints[-1] if hints else 0}.", "controlnet_cond_embedding.conv_out."
    yield "zero_convs.0.0.", "controlnet_down_blocks.0."
    level = place = 0
    for block in range(1, _count(names, "zero_convs.{}.0.weight")):
        original = f"input_blocks.{block}"
        yield f"zero_convs.{block}.0.", f"controlnet_down_blocks.{block}."
        yield f"{original}.0.op.", f"down_blocks.{level}.downsamplers.0.conv."
        yield f"{original}.0.", f"down_blocks.{level}.resnets.{place}."
        yield f"{original}.1.", f"down_blocks.{level}.attentions.{place}."
        ends = f"{original}.0.op.weight" in names
        level, place = (level + 1, 0) if ends else (level, place + 1)


def _begun(name: str, begins: Mapping[str, str]) -> str:
    for original, ours in begins.items():
        if name.startswith(original):
            return ours + name.removeprefix(original)
    return name


def _config(shapes: Shapes) -> dict[str, Any]:
    """Raises KeyError for a tensor without which there is no telling."""
    hint = "controlnet_cond_embedding"
    levels = _count(shapes, "down_blocks.{}.resnets.0.conv1.weight")
    attentions = [
        *(f"down_blocks.{level}.attentions.0" for level in range(levels)),
        "mid_block.attentions.0",
    ]
    blocks = [_count(shapes, f"{each}.transformer_blocks.{{}}.norm1.weight") for each in attentions]
    attending = [each for each, held in zip(attentions, blocks, strict=True) if held]
    reads_text = [f"{each}.transformer_blocks.0.attn2.to_k.weight" for each in attending]
    told = "add_embedding.linear_1.weight"
    return {
        "_class_name": "ControlNetModel",
        "in_channels": _side(shapes, "conv_in.weight", 1),
        "block_out_channels": [
            _side(shapes, f"down_blocks.{level}.resnets.0.conv1.weight", 0)
            for level in range(levels)
        ],
        "layers_per_block": _count(shapes, "down_blocks.0.resnets.{}.conv1.weight"),
        "down_block_types": [
            "CrossAttnDownBlock2D" if held else "DownBlock2D" for held in blocks[:-1]
        ],
        # The last number is that of the middle, too.
        "transformer_layers_per_block": [held or blocks[-1] or 1 for held in blocks[:-1]],
        "mid_block_type": "UNetMidBlock2DCrossAttn" if blocks[-1] else "UNetMidBlock2D",
        "cross_attention_dim": (
            _side(shapes, reads_text[0], 1) if reads_text else _UNREAD_TEXT_WIDTH
        ),
        "use_linear_projection": any(
            len(shapes.get(f"{each}.proj_in.weight", ())) == 2  # noqa: PLR2004 (a matrix)
            for each in attending
        ),
        "addition_embed_type": "text_time" if told in shapes else None,
        "projection_class_embeddings_input_dim": (
            _side(shapes, told, 1) if told in shapes else None
        ),
        "conditioning_channels": _side(shapes, f"{hint}.conv_in.weight", 1),
        # One layer in two keeps the width.
        "conditioning_embedding_out_channels": [
            _side(shapes, f"{hint}.conv_in.weight", 0),
            *(
                _side(shapes, f"{hint}.blocks.{place}.weight", 0)
                for place in range(1, _count(shapes, f"{hint}.blocks.{{}}.weight"), 2)
            ),
        ],
    }


def _count(names: Container[str], name: str) -> int:
    """How many there are of a name that counts from 0."""
    return next(number for number in count() if name.format(number) not in names)


def _side(shapes: Shapes, name: str, dimension: int) -> int:
    """Raises KeyError where there is no such tensor, or it has no such side."""
    shape = shapes.get(name, ())
    if len(shape) <= dimension:
        raise KeyError(name)
    return shape[dimension]
