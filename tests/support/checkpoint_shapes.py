"""Writes ``shapes.json`` beside the configs for single-file checkpoints: ``nox -s config_keys``.

Names and shapes of every tensor, as the pinned libraries make them from those configs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from rockiln.registry.checkpoint import SHIPPED
from rockiln.registry.checkpoint_names import FAMILIES
from rockiln.registry.layouts import LAYOUTS


def shapes_of(folder: Path) -> dict[str, dict[str, list[int]]]:
    """Component → tensor → shape. No weight is made."""
    found = {}
    for component, (library, kind, _) in LAYOUTS[FAMILIES[folder.name]].weighted.items():
        made: Any
        with torch.device("meta"):
            if library == "diffusers":
                cls = getattr(diffusers, kind)
                made = cls.from_config(cls.load_config(folder / component))
            else:
                cls = getattr(transformers, kind)
                made = cls(cls.config_class.from_pretrained(folder / component))
        found[component] = {
            name: list(tensor.shape) for name, tensor in sorted(made.state_dict().items())
        }
    return found


def as_text(folder: Path) -> str:
    parts = [
        f'"{component}": {{\n'
        + ",\n".join(f"{json.dumps(name)}: {shape}" for name, shape in shapes.items())
        + "\n}"
        for component, shapes in shapes_of(folder).items()
    ]
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    for configs in SHIPPED:
        (configs / "shapes.json").write_text(as_text(configs))
