"""Model folders with random weights in any size, for figures of loads and switches."""

from __future__ import annotations

from pathlib import Path

from support.known_models import CONFIGS
from support.random_models import make_part
from support.real_size import make_real_size
from support.tiny_sd1 import make_tiny_sd1, save_parts


def make_sized_model(folder: Path, size: str) -> Path:
    """Writes a model: ``tiny``, or ``sd15`` for its UNet and decoder in real size and float32.

    There the text encoder stays tiny, as its tokenizer does; the UNet reads text of its width.
    Another name of ``known_models`` is that model whole, in float16: ``sdxl`` is 6.9 GB.
    """
    if size not in {"tiny", "sd15"}:
        return make_real_size(folder, size)
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
