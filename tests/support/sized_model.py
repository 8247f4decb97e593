"""Model folders with random weights in any size, for figures of loads and switches."""

from __future__ import annotations

from pathlib import Path

from support.known_models import CONFIGS
from support.random_models import make_part
from support.tiny_sd1 import make_tiny_sd1, save_parts


def make_sized_model(folder: Path, size: str) -> Path:
    """Writes an SD 1.x model: ``tiny``, or ``sd15`` for its UNet and decoder in real size.

    The text encoder stays tiny, as its tokenizer does; the UNet reads text of its width.
    """
    make_tiny_sd1(folder)
    if size != "tiny":
        configs = CONFIGS[size]
        narrow = configs["unet"] | {"cross_attention_dim": 32}
        save_parts(
            folder,
            unet=make_part("UNet2DConditionModel", narrow),
            vae=make_part("AutoencoderKL", configs["vae"]),
        )
    return folder
