"""SDXL: a picture equals that of StableDiffusionXLPipeline bit for bit (CPU, float32)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.model import ModelProfile
from rockiln.domain.sampling import DIFFUSION_SCHEDULERS
from rockiln.engine.families.sdxl import FAMILY
from support.engine_harness import EngineHarness, largest_difference, read_profile
from support.parameters import parameters
from support.reference import Reference
from support.tiny_sdxl import make_tiny_sdxl

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_sdxl(tmp_path_factory.mktemp("models") / "tiny-sdxl")


@pytest.fixture(scope="module")
def model(folder: Path) -> ModelProfile:
    return read_profile(folder)


@pytest.fixture(scope="module")
def reference(folder: Path) -> Reference:
    reference = Reference(StableDiffusionXLPipeline, folder)
    reference.lay_out(torch.channels_last)
    return reference


@pytest.mark.parametrize(
    ("scheduler", "changes"),
    [
        (scheduler, changes)
        for place, changes in enumerate(
            [
                {"negative_prompt": "house"},
                {"negative_prompt": ""},
                {"guidance_scale": 1.0},
                {"width": 96},
                {"width": 72, "height": 104, "num_inference_steps": 7},
                {"prompt": "a boat " * 60},
            ]
        )
        for scheduler in (DIFFUSION_SCHEDULERS if place == 0 else ("euler", "dpmpp_2m"))
    ],
)
def test_picture_equals_reference(
    harness: EngineHarness,
    reference: Reference,
    model: ModelProfile,
    scheduler: str,
    changes: dict[str, Any],
) -> None:
    wanted = parameters(model=model.id, scheduler=scheduler, **changes)
    (picture,) = harness.run(wanted, model)
    (expected,) = reference.draw(wanted)
    assert largest_difference(harness.pixels(picture), expected) == 0


def test_empty_negative_is_encoded_where_the_model_says_so(
    harness: EngineHarness, folder: Path, tmp_path: Path
) -> None:
    encoding = Path(shutil.copytree(folder, tmp_path / "encoding"))
    _edit("model_index.json", force_zeros_for_empty_prompt=False)(encoding)
    reference = Reference(StableDiffusionXLPipeline, encoding)
    reference.lay_out(torch.channels_last)
    wanted = parameters(model="encoding", negative_prompt="")
    (picture,) = harness.run(wanted, read_profile(encoding))
    (expected,) = reference.draw(wanted)
    assert largest_difference(harness.pixels(picture), expected) == 0


@pytest.mark.parametrize(("upcast", "dtype"), [(True, torch.float32), (False, torch.float16)])
def test_autoencoder_that_overflows_in_float16_is_loaded_in_float32(
    folder: Path, tmp_path: Path, upcast: bool, dtype: torch.dtype
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    _edit("vae/config.json", force_upcast=upcast)(copy)
    modules = FAMILY.load(copy, torch.float16, torch.device("cpu")).modules
    assert (modules["vae"].dtype, modules["unet"].dtype) == (dtype, torch.float16)


def _edit(name: str, **values: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return edit


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_edit("unet/config.json", addition_embed_type=None), "not text and sizes"),
        (lambda folder: (folder / "text_encoder_2" / "model.safetensors").unlink(), "is missing"),
        (_edit("tokenizer_2/tokenizer_config.json", model_max_length=512), "window 512"),
    ],
)
def test_unsound_folder_is_refused(
    folder: Path, tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    spoil(copy)
    with pytest.raises(BrokenModelError) as raised:
        FAMILY.load(copy, torch.float32, torch.device("cpu"))
    assert words in raised.value.detail
