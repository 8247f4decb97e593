"""A textual inversion put into the models folder of a running service."""

from __future__ import annotations

import io
import json

import torch
from PIL import Image
from safetensors.torch import save_file

from support.service import Service


def test_a_file_is_a_word_in_prompts(service: Service) -> None:
    body = {"prompt": "a boat of quillwork", "seed": 3}
    word = service.post(json=body).content
    folder = service.data_dir / "models" / "embeddings"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "quillwork.safetensors"
    vectors = torch.randn((2, 32), generator=torch.Generator().manual_seed(1))
    save_file({"emb_params": vectors}, file)
    try:
        drawn = service.post(json=body)
        assert drawn.status_code == 200, drawn.text
        assert drawn.content != word
        record = json.loads(str(Image.open(io.BytesIO(drawn.content)).info["rockiln"]))
        assert list(record["embeddings"]) == ["quillwork"]
        assert service.post(json=record["parameters"]).content == drawn.content
        listed = service.get("/sdapi/v1/embeddings").json()
        assert listed["loaded"]["quillwork"]["vectors"] == 2
        save_file({"emb_params": torch.zeros(2, 768)}, file)
        refused = service.post(json=body)
        assert refused.status_code == 400
        assert "another base" in refused.json()["detail"]
    finally:
        file.unlink()
    assert service.post(json=body).content == word
    gone = service.post(json=record["parameters"])
    assert gone.status_code == 400
    assert "no textual inversion" in gone.json()["detail"]
