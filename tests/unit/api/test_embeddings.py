"""Textual inversions at the front: found in the texts, judged before anything is queued."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rockiln.registry import Catalogue
from rockiln.settings import Settings
from support.front import Front
from support.paper_model import PAPER, write_paper_model


def write_tensors(path: Path, **shapes: tuple[int, ...]) -> None:
    header: dict[str, Any] = {}
    place = 0
    for name, shape in shapes.items():
        end = place + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [place, end]}
        place = end
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(place))


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    """With a model whose text encoder is 32 numbers wide."""
    settings = Settings(public_dir=tmp_path / "public", data_dir=tmp_path / "data")
    models = settings.own_models_dir
    write_paper_model(models / PAPER.id)
    write_tensors(
        models / PAPER.id / "text_encoder" / "model.safetensors",
        **{"embeddings.token_embedding.weight": (10, 32)},
    )
    folder = models / "embeddings"
    folder.mkdir()
    write_tensors(folder / "ink.safetensors", emb_params=(2, 32))
    write_tensors(folder / "pair.safetensors", clip_l=(1, 768), clip_g=(1, 1280))
    write_tensors(folder / "lora.safetensors", **{"a.lora_down.weight": (1,), "b.alpha": ()})
    (folder / "torn.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    (folder / "pickle.pt").write_bytes(b"\x80\x04")
    profile = replace(PAPER, path=str(models / PAPER.id))
    made = Front(settings, Catalogue({PAPER.id: profile}))
    yield made
    made.close()


def test_a_job_records_those_that_its_texts_name(front: Front) -> None:
    job_id = front.submit(prompt="a boat, Ink", negative_prompt="inky")
    assert front.store.jobs.get(job_id).parameters.embeddings == ("ink",)
    plain = front.submit(prompt="a boat")
    assert "embeddings" not in front.store.jobs.get(plain).parameters.as_dict()
    recorded = front.store.jobs.get(job_id).parameters.as_dict()
    again = front.client.post(
        "/generate",
        json=json.loads(json.dumps(recorded)),
        headers={"Prefer": "respond-async"},
    )
    assert again.status_code == 202, again.text


@pytest.mark.parametrize(
    ("asked", "field", "words"),
    [
        ({"prompt": "pair"}, "embeddings", "another base: its vectors are 768 and 1280 wide"),
        ({"prompt": "a torn boat"}, "embeddings", "truncated"),
        ({"prompt": "a", "negative_prompt": "lora"}, "embeddings", "no textual inversion"),
        ({"prompt": "embedding:oil"}, "prompt", "there is no textual inversion 'oil'"),
        ({"prompt": "a", "embeddings": ["oil"]}, "embeddings", "there is no textual"),
        ({"prompt": "a", "embeddings": ["ink"]}, "embeddings", "neither text has 'ink'"),
        ({"prompt": "a", "embeddings": ["../x"]}, "embeddings", "there is no textual"),
        ({"prompt": "a", "embeddings": "ink"}, "embeddings", "list"),
    ],
)
def test_what_cannot_be_used_is_refused_before_it_is_queued(
    front: Front, asked: dict[str, Any], field: str, words: str
) -> None:
    answer = front.client.post("/generate", json=asked)
    assert answer.status_code == 400, answer.text
    problem = answer.get_json()
    assert problem["errors"][0]["field"] == field
    assert words in json.dumps(problem["errors"])
    assert front.store.jobs.page(limit=1) == []


def test_a1111_lists_those_that_fit_and_the_others(front: Front) -> None:
    said = front.client.get("/sdapi/v1/embeddings").get_json()
    assert {name: each["vectors"] for name, each in said["loaded"].items()} == {"ink": 2}
    assert said["loaded"]["ink"]["shape"] == 32
    assert sorted(said["skipped"]) == ["lora", "pair", "torn"]


def test_a1111_lists_loras(front: Front) -> None:
    folder = front.settings.own_models_dir / "loras"
    folder.mkdir()
    write_tensors(folder / "wash.safetensors", x=(1,))
    assert front.client.get("/sdapi/v1/loras").get_json() == [
        {"name": "wash", "alias": "wash", "path": "loras/wash.safetensors", "metadata": {}}
    ]
