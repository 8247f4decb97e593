"""LoRA files: where they are, what they change, and whether that is in a model. No torch.

Read from headers alone. Names of layers are understood as kohya's trainer writes them (with
diffusers' or the original checkpoints' blocks) and as diffusers and peft do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.model import ModelProfile
from rockiln.domain.request import LoraUse
from rockiln.registry.addons import addon_files, find_addons
from rockiln.registry.checkpoint import configs_shapes
from rockiln.registry.file_gate import check_file
from rockiln.registry.layouts import LAYOUTS
from rockiln.registry.safetensors_file import read_weights_file
from rockiln.registry.weights import component_shapes

LORAS_FOLDER = "loras"
Shape = tuple[int, ...]
# Component → its layers' names, with the shape of each one's weight.
Layers = Mapping[str, Mapping[str, Shape]]
_FlatLayers = Mapping[str, Mapping[str, tuple[str, Shape]]]

_PARTS = re.compile(
    r"(?P<layer>.+?)(?:_lora)?"
    r"\.(?:(?P<down>lora_down|lora_A|lora\.down|lora_linear_layer\.down|down)"
    r"|(?P<up>lora_up|lora_B|lora\.up|lora_linear_layer\.up|up))\.weight"
)
_ALPHA = ".alpha"
_PREFIXES = (
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("lora_te3_", "text_encoder_3"),
    ("lora_te_", "text_encoder"),
    ("text_encoder_2.", "text_encoder_2"),
    ("text_encoder.", "text_encoder"),
    ("lora_unet_", ""),
    ("lora_transformer_", ""),
    ("unet.", ""),
    ("transformer.", ""),
)
_DENOISERS = ("unet", "transformer")
# Blocks of the original checkpoints, as SDXL's trainers name them: two layers a level.
_LAYERS_PER_LEVEL = 2
_ORIGINAL = re.compile(r"(input_blocks|output_blocks)_(\d+)_1_(.+)|(middle_block)_1_(.+)")


@dataclass(frozen=True)
class LoraLayer:
    """What a file does to one layer: weight += strength * alpha / rank * up @ down.

    Attributes:
        layer: of ``component``, by its name there.
        down, up: names of the file's tensors.
        alpha: likewise; None: alpha is the rank.
    """

    component: str
    layer: str
    down: str
    up: str
    alpha: str | None
    rank: int


def lora_files(model_dirs: Iterable[Path]) -> dict[str, Path]:
    """Name → file, over the ``loras`` folders of the model directories; the first one wins."""
    return addon_files(model_dirs, LORAS_FOLDER)


def find_loras(model_dirs: Iterable[Path], uses: Iterable[LoraUse]) -> dict[str, str]:
    """Name → path of those that a job names. Raises BrokenModelError if one is not there."""
    names = [use.name for use in uses]
    return find_addons(lambda: lora_files(model_dirs), names, "LoRA")


def read_lora(path: Path, layers: Layers) -> list[LoraLayer]:
    """What the file changes in a model of these layers.

    Raises:
        BrokenModelError: the file is unsound, of another kind, or made for another model.
    """
    check_file(path, path.parent.parent)
    file = read_weights_file(path)
    if file.foreign_dtypes:
        raise BrokenModelError(f"{path.name} has weights of {', '.join(file.foreign_dtypes)}")
    shapes = file.shapes
    found: dict[str, dict[str, str]] = {}
    for name in shapes:
        if name.endswith(_ALPHA):
            found.setdefault(name.removesuffix(_ALPHA), {})["alpha"] = name
            continue
        match = _PARTS.fullmatch(name)
        if match is None:
            raise BrokenModelError(f"{path.name} is no plain LoRA: it has {name[:100]!r}")
        found.setdefault(match["layer"], {})["down" if match["down"] else "up"] = name
    flat = {
        component: {_flat(name): (name, shape) for name, shape in names.items()}
        for component, names in layers.items()
    }
    matched = [_layer(path, key, parts, shapes, flat) for key, parts in found.items()]
    if not matched:
        raise BrokenModelError(f"{path.name} changes nothing")
    return matched


def _layer(
    path: Path,
    key: str,
    parts: dict[str, str],
    shapes: Mapping[str, Shape],
    flat: _FlatLayers,
) -> LoraLayer:
    if not {"down", "up"} <= set(parts):
        raise BrokenModelError(f"{path.name} is no plain LoRA: {key[:100]!r} has no two matrices")
    component, layer = _find(key, flat)
    if layer is None:
        raise BrokenModelError(
            f"{path.name} was made for another kind of model: {key[:100]!r} is no layer of this one"
        )
    name, weight = layer
    down, up = shapes[parts["down"]], shapes[parts["up"]]
    fits = (
        len(down) in {2, 4}
        and len(down) == len(up)
        and _plain(up[:1] + down[1:]) == _plain(weight)
        and up[1] == down[0]
        and all(side == 1 for side in up[2:])
    )
    if not fits:
        raise BrokenModelError(
            f"{path.name} was made for another base: {name} is {list(weight)} here, the LoRA is "
            f"for {[up[0], *down[1:]]}"
        )
    return LoraLayer(component, name, parts["down"], parts["up"], parts.get("alpha"), down[0])


def _plain(shape: Shape) -> Shape:
    """A convolution of one pixel is a matrix."""
    return shape[:2] if all(side == 1 for side in shape[2:]) else shape


def _find(key: str, flat: _FlatLayers) -> tuple[str, tuple[str, Shape] | None]:
    for prefix, component in _PREFIXES:
        if key.startswith(prefix):
            rest = _flat(key.removeprefix(prefix).replace(".processor", ""))
            place = component or next((name for name in _DENOISERS if name in flat), "")
            names = flat.get(place, {})
            return place, names.get(rest) or names.get(_renamed(rest))
    return "", None


def _flat(name: str) -> str:
    return name.replace(".", "_").removeprefix("text_model_")


def _renamed(flat: str) -> str:
    """A block of the original checkpoints under diffusers' name."""
    match = _ORIGINAL.fullmatch(flat)
    if match is None:
        return ""
    if match[4]:
        return f"mid_block_attentions_0_{match[5]}"
    place, rest = int(match[2]), match[3]
    if match[1] == "input_blocks":
        level, layer = divmod(place - 1, _LAYERS_PER_LEVEL + 1)
        return f"down_blocks_{level}_attentions_{layer}_{rest}"
    level, layer = divmod(place, _LAYERS_PER_LEVEL + 1)
    return f"up_blocks_{level}_attentions_{layer}_{rest}"


def layers_of(profile: ModelProfile) -> dict[str, dict[str, Shape]]:
    """The layers of a model's components, from the headers of its weights.

    Raises:
        BrokenModelError: a file is unsound.
    """
    if profile.configs:
        shapes = configs_shapes(Path(profile.configs), profile.family)
    else:
        shapes = component_shapes(Path(profile.path), LAYOUTS[profile.family])
    return {
        component: {
            name.removesuffix(".weight"): shape
            for name, shape in tensors.items()
            if name.endswith(".weight") and len(shape) > 1
        }
        for component, tensors in shapes.items()
        if component != "vae"
    }
