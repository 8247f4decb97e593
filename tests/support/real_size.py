"""Model folders of real size with random weights, on disk: what a service can be given.

``python -m support.real_size FOLDER NAME`` writes one, and a
ControlNet of that name for it where it has a UNet.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.models.controlnets.controlnet import ControlNetModel

from rockiln.registry.layouts import LAYOUTS
from support.known_models import CONFIGS, FAMILY
from support.random_models import make_part
from support.tiny_flow import make_tiny_flux, make_tiny_sd3
from support.tiny_sd1 import make_tiny_sd1
from support.tiny_sdxl import make_tiny_sdxl

TINY = {"sd1": make_tiny_sd1, "sdxl": make_tiny_sdxl, "sd3": make_tiny_sd3, "flux": make_tiny_flux}
SHARD = "4GB"


def make_real_size(folder: Path, name: str) -> Path:
    """Writes the model ``name`` of ``known_models`` in float16: a tiny one, its networks replaced.

    Tokenizers stay tiny: they know fewer words than the text encoders. Without a manifest its
    defaults and limits are the family's. The largest text encoder, alike in all models that have
    it, is a hard link to one beside ``folder``.
    """
    family = FAMILY[name]
    TINY[family](folder)
    (folder / "rockiln.json").unlink()
    for part, config in CONFIGS[name].items():
        shutil.rmtree(folder / part)
        kind = LAYOUTS[family].weighted[part][1]
        if kind != "T5EncoderModel":
            _write(folder / part, kind, config)
            continue
        shared = folder.parent / ".t5"
        if not shared.exists():
            _write(shared, kind, config)
        (folder / part).mkdir()
        for path in shared.iterdir():
            (folder / part / path.name).hardlink_to(path)
    return folder


def make_controlnet(folder: Path, name: str) -> Path:
    """Writes the ControlNet that begins as the UNet of ``name``; it changes nothing yet."""
    with _in_half():
        unet = make_part("UNet2DConditionModel", CONFIGS[name]["unet"])
        _save(folder, ControlNetModel.from_unet(unet))
    return folder


def _write(folder: Path, kind: str, config: dict[str, object]) -> None:
    with _in_half():
        _save(folder, make_part(kind, config))


@contextmanager
def _in_half() -> Iterator[None]:
    """Random numbers are drawn in float16, on the GPU where there is one."""
    torch.set_default_dtype(torch.float16)
    try:
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def _save(folder: Path, module: Any) -> None:
    module.half().save_pretrained(folder, max_shard_size=SHARD)
    for path in folder.iterdir():
        path.chmod(0o644)


if __name__ == "__main__":
    make_real_size(Path(sys.argv[1]), sys.argv[2])
    if "unet" in CONFIGS[sys.argv[2]]:
        make_controlnet(Path(sys.argv[1]).parent / "controlnets" / sys.argv[2], sys.argv[2])
