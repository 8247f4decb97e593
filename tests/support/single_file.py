"""A model folder's weights as one file under the original names, with diffusers' own conversion.

The conversion is run over numbers that say where in the original they stood, and then read
backwards: what it would make of the file is exactly what is in the folder.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors.torch import load_file, save_file

from rockiln.registry.checkpoint_names import PREFIXES, is_open_clip, original_shapes
from rockiln.registry.json_file import read_json
from rockiln.registry.layouts import FAMILY_BY_PIPELINE

Tensors = dict[str, torch.Tensor]


def original_tensors(folder: Path, kind: str | None = None) -> Tensors:
    """What a single file of the model in ``folder`` holds.

    Args:
        kind: of file, where the family has more than one.
    """
    layout = FAMILY_BY_PIPELINE[read_json(folder / "model_index.json")["_class_name"]]
    found: Tensors = {}
    for component, (_, _, stem) in layout.weighted.items():
        tensors = load_file(folder / component / f"{stem}.safetensors")
        config = read_json(folder / component / "config.json")
        found |= _component(kind or layout.name, component, tensors, config)
    return found


def write_checkpoint(folder: Path, path: Path, kind: str | None = None, **changes: Any) -> Path:
    """Writes that file. ``changes`` are tensors by name, None for one that is left out."""
    tensors: dict[str, Any] = original_tensors(folder, kind) | changes
    save_file({name: each for name, each in tensors.items() if each is not None}, path)
    path.chmod(0o644)
    return path


def _component(kind: str, component: str, tensors: Tensors, config: dict[str, Any]) -> Tensors:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    places: Tensors = {}
    count = 0
    for name, shape in original_shapes(kind, component, shapes).items():
        size = math.prod(shape)
        places[name] = torch.arange(count, count + size).reshape(shape)
        count += size
    prefix = PREFIXES[kind][component]
    flat = torch.full([count], math.nan)
    for name, place in _converted(component, places, config, prefix).items():
        held = tensors.get(name)
        tensor = tensors[name.removeprefix("text_model.")] if held is None else held
        flat[place.flatten()] = tensor.flatten()
    assert not flat.isnan().any()
    return {name: flat[place.flatten()].reshape(place.shape) for name, place in places.items()}


def _converted(component: str, places: Tensors, config: dict[str, Any], prefix: str) -> Tensors:
    converted: Tensors
    if component == "unet":
        converted = convert_ldm_unet_checkpoint(places, config)
    elif component == "vae":
        converted = convert_ldm_vae_checkpoint(places, config)
    elif is_open_clip(prefix):
        width = SimpleNamespace(config=SimpleNamespace(hidden_size=config["hidden_size"]))
        converted = convert_open_clip_checkpoint(width, places, prefix=prefix)
    else:
        converted = convert_ldm_clip_checkpoint(places)
    return converted
