"""Pictures side by side on one sheet, for the eye."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor


def to_bytes(pictures: Tensor) -> Tensor:
    """[B,3,H,W] in 0..1 -> [B,H,W,3] uint8 on the CPU."""
    scaled = (pictures.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).contiguous().cpu()


def sheet(pictures: Tensor, columns: int, gap_px: int = 0) -> Image.Image:
    """One image of all pictures, row by row."""
    tiles = to_bytes(pictures)
    count, height, width, _ = tiles.shape
    rows = (count + columns - 1) // columns
    size = (columns * (width + gap_px) - gap_px, rows * (height + gap_px) - gap_px)
    image = Image.new("RGB", size, "white")
    for i in range(count):
        place = ((i % columns) * (width + gap_px), (i // columns) * (height + gap_px))
        image.paste(Image.fromarray(tiles[i].numpy()), place)
    return image


def save_sheet(pictures: Tensor, path: Path, columns: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet(pictures, columns).save(path, optimize=True)
