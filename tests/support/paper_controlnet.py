"""ControlNets for the model on paper: a config, and weights of that shape that are all zero."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from rockiln.registry.architecture import unet_facts
from rockiln.registry.controlnet_shapes import controlnet_tensors
from support.paper_model import UNET

CONTROLNET: dict[str, Any] = {
    **{name: value for name, value in UNET.items() if name != "up_block_types"},
    "_class_name": "ControlNetModel",
    "conditioning_embedding_out_channels": [4, 4, 8, 8],
}


def write_paper_controlnet(folder: Path, **changes: Any) -> Path:
    """Writes one whose config has ``changes``; returns the folder."""
    config = {**CONTROLNET, **changes}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    tensors = controlnet_tensors(unet_facts(config), config)
    write_zeros(folder / "diffusion_pytorch_model.safetensors", tensors)
    return folder


def write_zeros(path: Path, tensors: dict[str, tuple[int, ...]], dtype: str = "F16") -> None:
    """Weights of two bytes each."""
    header: dict[str, Any] = {}
    place = 0
    for name, shape in tensors.items():
        end = place + 2 * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [place, end]}
        place = end
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(place))
