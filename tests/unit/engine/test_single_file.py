"""A checkpoint in one file draws what its weights draw from a folder, bit for bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.request import GenerationParameters
from rockiln.engine.families import FAMILIES
from rockiln.engine.families.conversion import converted_weights, shipped_clip_tokenizer
from rockiln.registry import load_catalogue
from rockiln.registry.checkpoint import SHIPPED, checkpoint_weights, configs_shapes
from rockiln.registry.checkpoint_names import FAMILIES as KIND_FAMILIES
from rockiln.registry.checkpoint_names import original_shapes
from rockiln.registry.layouts import LAYOUTS
from support.engine_harness import EngineHarness, largest_difference, read_profile
from support.parameters import parameters
from support.random_models import CLASSES, TEXT_CLASSES
from support.reference import Reference
from support.single_file import write_checkpoint
from support.tiny_sd1 import make_tiny_sd1
from support.tiny_sdxl import make_tiny_sdxl
from unit.registry.test_single_files import shipped_names, write_header

pytestmark = pytest.mark.slow

CASES = {
    "sd1": (make_tiny_sd1, StableDiffusionPipeline),
    "sd2": (make_tiny_sd1, StableDiffusionPipeline),
    "sdxl": (make_tiny_sdxl, StableDiffusionXLPipeline),
}
ASKED = parameters(negative_prompt="house", num_inference_steps=3)


@pytest.fixture(scope="module", params=CASES)
def kind(request: pytest.FixtureRequest) -> str:
    """Of single file."""
    return str(request.param)


@pytest.fixture(scope="module")
def models(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with ``folder``, ``other`` of the same shape, and that one as a file."""
    root: Path = tmp_path_factory.mktemp(f"models-{kind}")
    make, _ = CASES[kind]
    make(root / "folder")
    make(root / "other", seed=1)
    write_checkpoint(root / "other", root / "file.safetensors", kind)
    return root


def _drawn(harness: EngineHarness, models: Path, name: str, asked: GenerationParameters) -> bytes:
    profile = load_catalogue([models]).models[name]
    (picture,) = harness.run(asked, profile)
    return harness.pixels(picture).tobytes()


def test_picture_equals_that_of_the_folder(harness: EngineHarness, models: Path) -> None:
    pictures = {name: _drawn(harness, models, name, ASKED) for name in ("folder", "other", "file")}
    assert pictures["file"] == pictures["other"]
    assert pictures["file"] != pictures["folder"]


def test_picture_equals_that_of_the_reference_pipeline(
    harness: EngineHarness, models: Path
) -> None:
    profile = load_catalogue([models]).models["file"]
    reference = Reference(CASES[profile.family][1], models / "other")
    reference.lay_out(torch.channels_last)
    (expected,) = reference.draw(ASKED)
    (picture,) = harness.run(ASKED, profile)
    assert largest_difference(harness.pixels(picture), expected) == 0


@pytest.mark.parametrize("told", ["by the file", "by a manifest"])
def test_a_schedule_that_is_told_is_that_of_a_folder(
    harness: EngineHarness, models: Path, tmp_path: Path, kind: str, told: str
) -> None:
    said = {
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
        "rescale_betas_zero_snr": True,
    }
    shutil.copytree(models / "other", tmp_path / "folder")
    config = tmp_path / "folder" / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | said))
    shutil.copytree(models / "other", tmp_path / "lender")
    marks: dict[str, torch.Tensor | None] = {}
    if told == "by the file":
        marks = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    else:
        manifest = json.loads((models / "other" / "rockiln.json").read_text())
        manifest["scheduler_config"] = said
        (tmp_path / "file.rockiln.json").write_text(json.dumps(manifest))
    write_checkpoint(models / "other", tmp_path / "file.safetensors", kind, **marks)
    pictures = {
        name: np.frombuffer(_drawn(harness, tmp_path, name, ASKED), np.uint8)
        for name in ("folder", "lender", "file")
    }
    # Weights lie elsewhere in memory; a start from plain noise magnifies how sums round there.
    assert largest_difference(pictures["file"], pictures["folder"]) <= 1
    assert largest_difference(pictures["file"], pictures["lender"]) > 20


def test_nothing_is_loaded_where_a_tensor_went_missing_since(
    models: Path, tmp_path: Path, kind: str
) -> None:
    """The registry would refuse it; so does the load, should the file have changed in between."""
    family = read_profile(models / "other").family
    path = tmp_path / "short.safetensors"
    for name in (
        "model.diffusion_model.out.2.bias",
        "first_stage_model.decoder.mid.attn_1.q.weight",
    ):
        write_checkpoint(models / "other", path, kind, **{name: None})
        with pytest.raises(BrokenModelError, match="weights are missing"):
            FAMILIES[family].load(models / "folder", torch.float32, torch.device("cpu"), path)


def test_a_changed_file_is_loaded_anew(
    harness: EngineHarness, models: Path, tmp_path: Path, kind: str
) -> None:
    shutil.copytree(models / "folder", tmp_path / "folder")
    path = tmp_path / "file.safetensors"
    write_checkpoint(models / "folder", path, kind)
    before = _drawn(harness, tmp_path, "file", ASKED)
    write_checkpoint(models / "other", path, kind)
    after = _drawn(harness, tmp_path, "file", ASKED)
    assert before == _drawn(harness, models, "folder", ASKED)
    assert after == _drawn(harness, models, "other", ASKED)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_that_of_the_folder(models: Path, dtype: torch.dtype) -> None:
    family = FAMILIES[read_profile(models / "other").family]
    cpu = torch.device("cpu")
    one = family.load(models / "other", dtype, cpu).modules
    other = family.load(models / "folder", dtype, cpu, models / "file.safetensors").modules
    for name, module in one.items():
        state = other[name].state_dict()
        assert {key: tensor.dtype for key, tensor in module.state_dict().items()} == {
            key: tensor.dtype for key, tensor in state.items()
        }
        for key, tensor in module.state_dict().items():
            assert torch.equal(tensor, state[key]), (name, key)


def test_shipped_tokenizer_is_clips() -> None:
    """Ids as OpenAI's own tokenizer gives them for this sentence, in its public tests."""
    (sd1, sd2, sdxl) = SHIPPED
    tokenizer = shipped_clip_tokenizer(sd1 / "tokenizer")
    ids = tokenizer("a photo of an astronaut riding a horse on mars").input_ids
    assert ids == [49406, 320, 1125, 539, 550, 18376, 6765, 320, 4558, 525, 7496, 49407]
    assert (len(tokenizer), tokenizer.model_max_length) == (49408, 77)
    second = shipped_clip_tokenizer(sdxl / "tokenizer_2")
    assert (tokenizer.pad_token_id, second.pad_token_id) == (49407, 0)
    assert shipped_clip_tokenizer(sd2 / "tokenizer").pad_token_id == 0


@pytest.mark.parametrize("configs", SHIPPED, ids=lambda folder: folder.name)
def test_every_tensor_of_a_usual_file_finds_its_place(configs: Path, tmp_path: Path) -> None:
    """diffusers' conversion of the published names, at real size without a byte of weights."""
    name = configs.name
    family = KIND_FAMILIES[name]
    path = tmp_path / "usual.safetensors"
    write_header(path, shipped_names(name))
    weights = checkpoint_weights(path, configs, family)
    shapes = configs_shapes(configs, family)
    for component, (_, kind, _) in LAYOUTS[family].weighted.items():
        part = weights[component]
        named = original_shapes(name, component, shapes[component])
        original = {name: torch.empty(named[name], device="meta") for name in part.names}
        found = converted_weights((CLASSES | TEXT_CLASSES)[kind], part, original)
        assert {name: tuple(each.shape) for name, each in found.items()} == shapes[component]
