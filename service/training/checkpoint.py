"""Checkpoints: safetensors files of tensors and a step number, written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor


def save(path: Path, tensors: dict[str, Tensor], step: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    whole = {name: value.detach().contiguous().cpu().clone() for name, value in tensors.items()}
    save_file(whole, partial, metadata={"step": str(step)})
    partial.replace(path)


def load(path: Path) -> tuple[dict[str, Tensor], int]:
    """Tensors and the number of steps done."""
    with safe_open(path, framework="pt") as handle:
        metadata = handle.metadata() or {}
    return load_file(path), int(metadata.get("step", "0"))


def step_generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    """Randomness of one training step: a function of seed and step alone, so that a resumed run
    sees the same data and the same noise as one that never stopped."""
    generator = torch.Generator(device=device)
    generator.manual_seed((seed * 1_000_003 + step) & 0x7FFFFFFFFFFF)
    return generator
