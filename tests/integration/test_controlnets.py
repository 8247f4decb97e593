"""A ControlNet put into the models folder of a running service, and an engine that dies with it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from integration.test_deaths import denoising
from support.service import Service
from support.tiny_controlnet import make_tiny_controlnet


def picture() -> str:
    pixels = np.random.default_rng(1).integers(0, 255, (96, 256, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_a_map_outlives_the_engine_that_followed_it(
    new_service: Callable[..., Service], models_dir: Path
) -> None:
    service = new_service()
    place = service.data_dir / "models" / "controlnets" / "edges"
    make_tiny_controlnet(place, models_dir / "tiny")
    (listed,) = service.get("/controlnets").json()["controlnets"]
    assert (listed["name"], listed["models"]) == ("edges", ["tiny"])
    asked: dict[str, Any] = {"prompt": "a lake", "seed": 3, "num_inference_steps": 90}
    asked["controlnets"] = [{"name": "edges", "image": picture(), "scale": 0.9, "end": 0.9}]
    drawn = service.post(json=asked)
    assert drawn.status_code == 200, drawn.text
    expected = drawn.content
    with Image.open(io.BytesIO(expected)) as image:
        assert image.size == (256, 96)
        record = json.loads(str(image.info["rockiln"]))
    assert list(record["controlnets"]) == ["edges"]
    job_id = service.submit(**asked)
    denoising(service, job_id)
    service.kill(service.engine())
    assert service.wait_for(job_id, "done")["attempt"] == 2
    assert service.get(f"/jobs/{job_id}/artefacts/0").content == expected
