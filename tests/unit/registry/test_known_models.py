"""The catalogue of known models: nothing in it without a source."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from rockiln.registry.known_models import KnownModel, known_models
from rockiln.registry.layouts import LAYOUTS
from rockiln.registry.model_files import files_of_model

ROW = {"id": "x", "title": "X", "licence": "MIT", "sources": {"licence": "its model card"}}
UNUSABLE = {**ROW, "repository": "a/b", "sources": {**ROW["sources"], "gated": "its model card"}}  # type: ignore[dict-item]


def test_the_models_of_the_field_are_known() -> None:
    assert set(known_models()) >= {
        "vista", "sd15", "sd21", "sdxl", "sdxl-turbo", "sdxl-lightning-4step", "sd3-medium",
        "sd3.5-medium", "sd3.5-large", "sd3.5-large-turbo", "flux1-schnell", "flux1-dev",
        "flux2-klein-4b", "z-image-turbo", "qwen-image",
    }  # fmt: skip


@pytest.mark.parametrize("model", known_models().values(), ids=lambda model: model.id)
def test_a_row_runs_or_says_why_not(model: KnownModel) -> None:
    if model.unsupported or model.bundled:
        assert not model.gated
        return
    assert model.family in LAYOUTS
    assert model.defaults is not None
    assert model.defaults.scheduler in LAYOUTS[model.family].schedulers
    assert model.manifest().title == model.title
    profile = model.profile()
    assert (profile is None) == ("parameters of unet" in model.lacks)
    sizes = {file.path.split("/")[0]: file.size_bytes for file in model.files if file.size_bytes}
    for part, size_bytes in sizes.items():  # fp16 files hold two bytes a number, and a header
        if part in model.parameters:
            assert 0 <= size_bytes - 2 * model.parameters[part] < size_bytes / 500


def test_what_is_not_known_is_said() -> None:
    rows = known_models()
    assert rows["sd15"].lacks == []
    assert rows["sdxl"].lacks == []
    assert "commit" in rows["sd21"].lacks
    assert rows["flux1-dev"].lacks == [
        "sha256 of text_encoder", "sha256 of text_encoder_2", "sha256 of transformer",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "row",
    [
        {**ROW, "commit": "0" * 40},  # without a source
        {**ROW, "sources": {}},
        {**ROW, "id": "../x"},
        {**ROW, "repository": "../etc"},
        UNUSABLE,  # neither runnable nor said why not
        {**UNUSABLE, "unsupported": "no family"},  # without a source
        {**ROW, "files": [{"path": "../x"}]},
        {**ROW, "unknown": 1},
    ],
)
def test_rows_that_are_refused(row: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        KnownModel.model_validate(row)


def test_of_a_repository_only_the_models_files_are_taken() -> None:
    held = [
        "model_index.json", "scheduler/scheduler_config.json", "v1-5-pruned.ckpt",
        "text_encoder/config.json", "text_encoder/model.safetensors", "tokenizer/vocab.json",
        "tokenizer/merges.txt", "unet/config.json", "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
        "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model.fp16-00002-of-00002.safetensors",
        "unet/diffusion_pytorch_model.safetensors", "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors", "safety_checker/model.safetensors",
    ]  # fmt: skip
    taken = files_of_model(held, LAYOUTS["sd1"], "fp16")
    assert not [path for path in taken if path.endswith((".ckpt", ".bin"))]
    assert "unet/diffusion_pytorch_model.safetensors" not in taken
    assert {path for path in taken if "fp16" in path} == {path for path in held if "fp16" in path}
    assert "unet/diffusion_pytorch_model.safetensors" in files_of_model(held, LAYOUTS["sd1"], None)
