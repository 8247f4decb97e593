"""A transformer in a ``.safetensors`` file beside a folder draws what a folder with it draws."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline, StableDiffusion3Pipeline
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.model import ModelProfile
from rockiln.engine.families import FAMILIES
from rockiln.engine.picture_file import read_record
from rockiln.engine.quantisation import Float8Linear
from rockiln.registry import load_catalogue
from support.engine_harness import EngineHarness, largest_difference
from support.parameters import parameters
from support.reference import Reference
from support.tiny_flow import make_tiny_flux, make_tiny_sd3
from support.transformer_file import family_of, original_tensors, write_safetensors, write_scaled

pytestmark = pytest.mark.slow

ASKED = parameters(scheduler="flow_euler", num_inference_steps=3, width=64, height=64)
CPU = torch.device("cpu")
FLOW: dict[str, tuple[Callable[..., Path], Any, Any]] = {
    "flux": (make_tiny_flux, FluxPipeline, FluxTransformer2DModel),
    "sd3": (make_tiny_sd3, StableDiffusion3Pipeline, SD3Transformer2DModel),
}
FIRST = {"flux": "img_in.weight", "sd3": "y_embedder.mlp.0.weight"}
PREFIX = "model.diffusion_model."


@pytest.fixture(scope="module", params=FLOW)
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``lender``; ``folder``, which differs in its transformer; that one as files."""
    root: Path = tmp_path_factory.mktemp(f"models-{request.param}")
    make, _, kind = FLOW[request.param]
    make(root / "lender", inner=96)
    make(root / "z-folder", inner=96)
    torch.manual_seed(1)
    other = kind.from_config(kind.load_config(root / "lender" / "transformer"))
    other.save_pretrained(root / "z-folder" / "transformer")
    write_safetensors(root / "z-folder", root / "bare.safetensors")
    beside: dict[str, Any] = {
        name: torch.ones(4, dtype=torch.int64)
        for name in ("first_stage_model.decoder.x", "text_encoders.clip_l.x", "vae.decoder.x")
    }
    write_safetensors(root / "z-folder", root / "whole.safetensors", prefix=PREFIX, **beside)
    return root


@pytest.fixture
def profiles(models: Path) -> dict[str, ModelProfile]:
    catalogue = load_catalogue([models])
    assert catalogue.broken == {}
    return catalogue.models


def test_pictures_are_those_of_the_folder_and_of_diffusers(
    harness: EngineHarness, models: Path, profiles: dict[str, ModelProfile]
) -> None:
    reference = Reference(FLOW[profiles["lender"].family][1], models / "z-folder")
    for part in (reference.pipeline.vae, reference.pipeline.transformer):
        part.to(memory_format=torch.channels_last)
    (expected,) = reference.draw(ASKED)
    pixels = {}
    for name, profile in profiles.items():
        (picture,) = harness.run(ASKED, profile)
        pixels[name] = harness.pixels(picture)
    for name in ("z-folder", "bare", "whole"):
        assert largest_difference(pixels[name], expected) == 0, name
    assert largest_difference(pixels["lender"], expected) > 0


@pytest.mark.parametrize("held", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_that_of_the_folder(
    models: Path,
    profiles: dict[str, ModelProfile],
    tmp_path: Path,
    held: torch.dtype,
    dtype: torch.dtype,
) -> None:
    family = FAMILIES[profiles["lender"].family]
    path = write_safetensors(models / "z-folder", tmp_path / "file.safetensors", held)
    one = family.load(models / "z-folder", torch.float32, CPU).modules["transformer"].state_dict()
    other = family.load(models / "lender", dtype, CPU, path).modules["transformer"].state_dict()
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert other[name].dtype == dtype
        assert torch.equal(tensor.to(held).to(dtype), other[name]), name


@pytest.mark.parametrize(
    ("name", "placement"), [("scale_weight", None), ("weight_scale", "group_offload")]
)
def test_fp8_with_scales_is_multiplied_by_them(
    harness: EngineHarness, models: Path, tmp_path: Path, name: str, placement: str | None
) -> None:
    """As diffusers draws with the numbers that are meant; they stay a byte each."""
    root = tmp_path / "models"
    shutil.copytree(models / "lender", root / "lender")
    mark = name == "scale_weight"
    prefix = "" if mark else PREFIX
    path = root / "scaled.safetensors"
    meant = write_scaled(models / "z-folder", path, prefix, name=name, mark=mark)
    profile = load_catalogue([root]).models["scaled"]
    reference = Reference(FLOW[profile.family][1], models / "lender")
    reference.pipeline.transformer.load_state_dict(meant)
    for part in (reference.pipeline.vae, reference.pipeline.transformer):
        part.to(memory_format=torch.channels_last)
    (expected,) = reference.draw(ASKED)
    changes = {"placement": placement} if placement else {}
    (made,) = harness.run(ASKED, profile, chosen=harness.plan(ASKED, profile, **changes))
    assert largest_difference(harness.pixels(made), expected) <= len(changes)
    said = {"kind": "f8_e4m3", "exact": False, "weight_error": 0.029}
    assert (read_record(harness.data(made)) or {})["quantisation"] == {"transformer": said}
    module = harness.shelf.take(profile, harness.plan(ASKED, profile)).model.components
    held = [each for each in module.modules["transformer"].modules() if type(each) is Float8Linear]
    assert sum(each.weight.numel() for each in held) == profile.quantised["transformer"].held_bytes
    assert all(each.weight.element_size() == 1 for each in held)


def test_scales_that_float16_cannot_hold_lose_nothing(models: Path, tmp_path: Path) -> None:
    """A layer of small weights has one below float16's normal numbers."""
    folder = models / "z-folder"
    name = FIRST[family_of(folder)]
    layer = name.removesuffix(".weight")
    shape = original_tensors(folder)[name].shape
    numbers = torch.full(shape, 448.0).to(torch.float8_e4m3fn)
    changes: dict[str, Any] = {name: numbers, f"{layer}.scale_weight": torch.tensor(3.3e-6)}
    path = tmp_path / "scaled.safetensors"
    write_scaled(folder, path, **changes)
    family = FAMILIES[family_of(folder)]
    module = family.load(models / "lender", torch.float16, CPU, path).modules["transformer"]
    (scaled,) = [
        each
        for each in module.modules()
        if isinstance(each, Float8Linear) and each.scale == pytest.approx(3.3e-6)
    ]
    scaled.bias.zero_()
    found = scaled(torch.eye(scaled.in_features, dtype=torch.float16))
    assert found.float().mean() == pytest.approx(448 * 3.3e-6, rel=2e-3)


def test_such_a_file_can_be_rounded_at_load(
    harness: EngineHarness, models: Path, tmp_path: Path
) -> None:
    said = json.loads((models / "lender" / "rockiln.json").read_text())
    said["quantisation"] = {"transformer": "q8_0"}
    manifest, folder = models / "bare.rockiln.json", models / "z-folder" / "rockiln.json"
    before = folder.read_text()
    try:
        manifest.write_text(json.dumps(said))
        folder.write_text(json.dumps(said))
        found = load_catalogue([models]).models
        pixels = [
            harness.pixels(harness.run(ASKED, found[name])[0]) for name in ("bare", "z-folder")
        ]
    finally:
        manifest.unlink()
        folder.write_text(before)
    assert found["bare"].quantised == found["z-folder"].quantised
    assert found["bare"].quantised["transformer"].at_load
    assert largest_difference(*pixels) == 0


def test_nothing_is_loaded_where_the_file_changed_since(
    models: Path, profiles: dict[str, ModelProfile], tmp_path: Path
) -> None:
    """The registry would refuse it; so does the load."""
    family = profiles["lender"].family
    name = FIRST[family]
    for changes, words in (
        ({name: None}, "is missing"),
        ({name: torch.zeros(4, 4)}, r"is \[4, 4\], not"),
        ({name: torch.zeros(4, 4, dtype=torch.int32)}, "is of I32"),
        ({"x": torch.zeros(4)}, "is no part of it"),
    ):
        path = write_safetensors(models / "z-folder", tmp_path / "f.safetensors", **changes)
        with pytest.raises(BrokenModelError, match=words):
            FAMILIES[family].load(models / "lender", torch.float32, CPU, path)
