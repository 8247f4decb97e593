"""Squares of 2x2 latents as the tokens of a transformer."""

from __future__ import annotations

import torch

PATCH = 2


def to_patches(latents: torch.Tensor) -> torch.Tensor:
    """[B, C, 2 * rows, 2 * columns] → [B, rows * columns, 4 * C]."""
    samples, channels, height, width = latents.shape
    rows, columns = height // PATCH, width // PATCH
    return (
        latents.reshape(samples, channels, rows, PATCH, columns, PATCH)
        .permute(0, 2, 4, 1, 3, 5)
        .reshape(samples, rows * columns, channels * PATCH * PATCH)
    )


def from_patches(patches: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """[B, rows * columns, 4 * C] → [B, C, 2 * rows, 2 * columns]."""
    samples, _, numbers = patches.shape
    channels = numbers // PATCH**2
    return (
        patches.reshape(samples, rows, columns, channels, PATCH, PATCH)
        .permute(0, 3, 1, 4, 2, 5)
        .reshape(samples, channels, rows * PATCH, columns * PATCH)
    )
