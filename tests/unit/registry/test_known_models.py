"""The catalogue of known models: nothing in it without a source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rockiln.domain.model import DeviceFacts, ModelProfile
from rockiln.domain.plan import admit
from rockiln.domain.weights import denoiser_parameters
from rockiln.registry.architecture import architecture_of
from rockiln.registry.known_models import KnownModel, known_models
from rockiln.registry.layouts import LAYOUTS
from rockiln.registry.model_files import files_of_model
from support.known_models import CONFIGS, known_profile
from support.parameters import parameters

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
    assert model.profile() is not None
    sizes = {file.path.split("/")[0]: file.size_bytes for file in model.files if file.size_bytes}
    for part, size_bytes in sizes.items():  # fp16 files hold two bytes a number, and a header
        if part in model.parameters:
            assert 0 <= size_bytes - 2 * model.parameters[part] < size_bytes / 500


# Id → its name among the profiles that real configs make.
SHAPES = {
    "sd15": "sd15", "sdxl": "sdxl", "sdxl-turbo": "sdxl", "sdxl-lightning-4step": "sdxl",
    "sd3-medium": "sd3", "sd3.5-medium": "sd35", "sd3.5-large": "sd35-large",
    "sd3.5-large-turbo": "sd35-large", "flux1-dev": "flux", "flux2-klein-base-4b": "flux2",
    "z-image-turbo": "z_image", "qwen-image": "qwen_image",
}  # fmt: skip
CARDS = [
    row
    for row in json.loads(
        (Path(__file__).parents[2] / "fixtures/memory/nvidia_h200_service.json").read_text()
    )["rows"]
    # What was refused then was so for text encoders that had to be whole.
    if not row["controlnets"] and "beside" not in row and row["outcome"] == "picture"
]


def profile_of_known(model_id: str) -> ModelProfile:
    profile = known_models()[model_id].profile()
    assert profile is not None
    return profile


def test_a_known_model_is_judged_by_its_own_shape() -> None:
    runnable = {row.id for row in known_models().values() if not row.bundled and row.family}
    assert runnable - set(SHAPES) == {"sd21", "flux1-schnell", "flux2-klein-4b"}
    for model_id in runnable:
        profile = profile_of_known(model_id)
        shape = profile.architecture
        assert shape is not None
        if model_id in SHAPES:
            assert shape == known_profile(SHAPES[model_id]).architecture
        numbers = profile.component_parameters
        held = numbers.get("unet") or numbers["transformer"]
        assert denoiser_parameters(shape.denoiser) == pytest.approx(held, rel=0.06)


def test_a_distilled_model_has_no_unconditional_sample() -> None:
    distilled, base = (
        profile_of_known(name).architecture for name in ("flux2-klein-4b", "flux2-klein-base-4b")
    )
    assert distilled is not None
    assert base is not None
    assert distilled.denoiser != base.denoiser
    assert distilled.decoder == base.decoder


@pytest.mark.parametrize(
    "row", CARDS, ids=lambda row: f"{row['card_gib']}-{row['model']}-{row['width']}"
)
def test_before_it_is_here_a_model_fits_where_a_gpu_ran_it(row: dict[str, Any]) -> None:
    """Judged by SDXL's shape, SD3 and FLUX.1 were said to fit where they did not."""
    model_id = next(known for known, name in SHAPES.items() if name == row["model"])
    total = row["card_gib"] << 30
    card = DeviceFacts("gpu", "simulated", total, 8, "cuda", "sm_90", 126 << 30)
    sizes = {name: row[name] for name in ("width", "height", "num_images")}
    found = admit(parameters(**sizes), profile_of_known(model_id), card)
    assert found.rungs is not None
    assert found.rungs.denoise.value == row["denoise"]


@pytest.mark.parametrize(
    ("model_id", "denoise"),
    [
        ("sd3-medium", "text_encoder_offload"), ("sd3.5-large", "group_offload"),
        ("flux1-dev", "group_offload"), ("flux2-klein-4b", "group_offload"),
        ("z-image-turbo", "group_offload"), ("qwen-image", "group_offload"),
    ],
)  # fmt: skip
def test_8_gib_hold_every_known_model_with_exact_weights(model_id: str, denoise: str) -> None:
    card = DeviceFacts("gpu", "simulated", 8 << 30, 8, "rocm", "gfx1030", 64 << 30)
    found = admit(parameters(width=1024, height=1024), profile_of_known(model_id), card)
    assert found.rungs is not None
    assert (found.rungs.denoise.value, found.quantisation) == (denoise, {})


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


def test_a_transformer_that_does_not_tell_its_table_of_places_has_diffusers_own() -> None:
    told = {**CONFIGS["sd3"]["transformer"], "_class_name": "SD3Transformer2DModel"}
    silent = {name: value for name, value in told.items() if name != "pos_embed_max_size"}
    vae = CONFIGS["sd3"]["vae"]
    assert architecture_of(silent, vae, []) == architecture_of(
        silent | {"pos_embed_max_size": 96}, vae, []
    )
    assert architecture_of(silent, vae, []) not in (None, architecture_of(told, vae, []))
