"""Models in one file, put into the models folder of a running service."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from support.service import Service
from support.single_file import write_checkpoint
from support.tiny_flow import make_tiny_flux
from support.transformer_file import write_gguf, write_safetensors

ASKED = {"prompt": "a red boat", "seed": 5}
SIZE = {"width": 64, "height": 64}


def _drawn(service: Service, asked: dict[str, Any]) -> npt.NDArray[np.uint8]:
    drawn = service.post(json=asked)
    assert drawn.status_code == 200, drawn.text
    return np.asarray(Image.open(io.BytesIO(drawn.content)))


def test_a_file_is_listed_drawn_with_and_can_be_removed(
    new_service: Callable[..., Service], models_dir: Path
) -> None:
    service = new_service()
    own = service.data_dir / "models"
    shutil.copytree(models_dir / "tiny", own / "lender")
    assert "lender" in {each["id"] for each in service.get("/models").json()["models"]}
    write_checkpoint(models_dir / "tiny", own / "boats_v1.safetensors")  # seen by itself
    (own / "old.ckpt").write_bytes(b"\x80\x04")

    listed = json.loads(service.command("models", "list", "--json", "--url", service.url).stdout)
    found = {each["id"]: each for each in listed}
    assert found["boats_v1"]["state"] == "ready"
    assert found["boats_v1"]["configs"] == "lender"
    assert found["old"]["state"] == "broken"
    assert "can run code" in found["old"]["reason"]
    shown = service.command("models", "show", "boats_v1", "--url", service.url).stdout
    assert "configs: lender" in shown

    pixels = [_drawn(service, ASKED | {"model": model}) for model in ("tiny", "boats_v1")]
    assert np.array_equal(pixels[0], pixels[1])
    refused = service.post(json=ASKED | {"model": "old"})
    assert "can run code" in refused.json()["detail"]
    assert refused.json()["type"].endswith("broken-model")
    removed = service.delete("/models/boats_v1")
    assert (removed.status_code, removed.json()["task"]["kind"]) == (202, "remove")


def test_transformers_in_one_file_draw_beside_their_folder_and_say_what_is_lost(
    new_service: Callable[..., Service],
) -> None:
    service = new_service()
    own = service.data_dir / "models"
    make_tiny_flux(own / "flux", inner=96)
    said = json.loads((own / "flux" / "rockiln.json").read_text())
    said["quantisation"] = {"text_encoder_2": "q8_0"}
    (own / "flux" / "rockiln.json").write_text(json.dumps(said))
    write_gguf(own / "flux", own / "flux-q4_0.gguf", "Q4_0")
    (own / "torn.gguf").write_bytes((own / "flux-q4_0.gguf").read_bytes()[:-64])
    write_safetensors(own / "flux", own / "flux-f32.safetensors", prefix="model.diffusion_model.")
    write_safetensors(own / "flux", own / "flux-f8.safetensors", torch.float8_e4m3fn)
    found = {each["id"]: each for each in service.get("/models").json()["models"]}
    assert found["flux-f8"]["quantisation"]["transformer"]["kind"] == "f8_e4m3"
    assert found["flux-f32"]["configs"] == "flux"
    pixels = [_drawn(service, ASKED | {"model": name, **SIZE}) for name in ("flux", "flux-f32")]
    assert np.array_equal(pixels[0], pixels[1])
    held = found["flux-q4_0"]["quantisation"]
    assert {part: (each["kind"], each["exact"]) for part, each in held.items()} == {
        "transformer": ("q4_0", False), "text_encoder_2": ("q8_0", False),
    }  # fmt: skip
    assert (found["torn"]["state"], "truncated" in found["torn"]["reason"]) == ("broken", True)
    asked = ASKED | {"model": "flux-q4_0", **SIZE}
    drawn = service.post(json=asked)
    assert drawn.status_code == 200, drawn.text
    text = Image.open(io.BytesIO(drawn.content)).info["parameters"]
    assert "text_encoder_2 q8_0" in text
    assert "transformer q4_0" in text
    (picture,) = service.post(json=asked, headers={"Accept": "application/json"}).json()["pictures"]
    assert picture["details"]["quantisation"] == held
