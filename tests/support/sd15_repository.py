"""A hub's repository of SD 1.5 without weights to speak of."""

from __future__ import annotations

import json
import os
from pathlib import Path

from rockiln.registry.known_models import known_models
from support.paper_model import write_paper_model

SD15 = known_models()["sd15"]
REPOSITORY = SD15.repository or ""
UNET = "unet/diffusion_pytorch_model.safetensors"


def weights(size: int) -> bytes:
    header = json.dumps(
        {"x": {"dtype": "U8" if size % 4 else "F32", "shape": [size // 4],
               "data_offsets": [0, size]}}
    ).encode()  # fmt: skip
    return len(header).to_bytes(8, "little") + header + os.urandom(size)


def write_repository(folder: Path) -> dict[str, bytes]:
    """Path → content of a model, and of what a repository has beside it."""
    write_paper_model(folder)
    (folder / "rockiln.json").unlink()
    held = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    return held | {
        UNET: weights(3 << 20),
        "v1-5-pruned.ckpt": b"\x80\x02pickle",
        "safety_checker/pytorch_model.bin": b"PK\x03\x04",
        "README.md": b"card",
    }
