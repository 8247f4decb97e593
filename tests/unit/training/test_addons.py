"""The LoRA and the ControlNet beside vista do what their cards say, drawn by the engine."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rockiln.domain.request import ControlNetUse, GenerationParameters, LoraUse
from rockiln.registry.controlnets import of_model, read_controlnet
from rockiln.registry.loras import layers_of, read_lora
from support.engine_harness import EngineHarness, read_profile
from support.parameters import parameters
from training import train_addon
from training.card import MODEL_FOLDER
from training.draw import draw
from training.scenes import scene_at
from training.show_features import CONTROLNET, LORA, ink_distance, line_agreement, sent
from training.styles import INKS, edges, screen_print

pytestmark = pytest.mark.slow

MODELS = MODEL_FOLDER.parent
LORA_FILE = MODELS / "loras" / f"{LORA}.safetensors"
CONTROLNET_FOLDER = MODELS / "controlnets" / CONTROLNET
DRAWN = parameters(
    prompt="a green house, daytime, blue sky, snow", width=256, height=256,
    num_inference_steps=8, guidance_scale=2.5, scheduler="dpmpp_2m", model="vista",
)  # fmt: skip


def test_edges_are_where_areas_meet() -> None:
    picture = torch.zeros(1, 3, 8, 8)
    picture[..., 4:] = 1.0
    assert edges(picture)[0, 0].sum(dim=0).tolist() == [0, 0, 0, 8, 8, 0, 0, 0]


def test_a_print_has_nothing_but_its_inks() -> None:
    picture = screen_print(draw([scene_at(3, 0)], 64, 64))[0]
    assert ink_distance(picture) == pytest.approx(0.0, abs=1e-5)
    assert len({tuple(pixel) for pixel in picture.flatten(1).T.tolist()}) <= len(INKS)


def test_they_ship_small_and_are_made_for_vista() -> None:
    profile = read_profile(MODEL_FOLDER)
    assert LORA_FILE.stat().st_size < 1_500_000
    assert sum(path.stat().st_size for path in CONTROLNET_FOLDER.iterdir()) < 8_000_000
    assert read_lora(LORA_FILE, layers_of(profile))
    of_model(read_controlnet(CONTROLNET_FOLDER), profile)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # (diffusers)
def test_each_changes_the_picture_as_its_card_says(tmp_path: Path) -> None:
    harness, model = EngineHarness(tmp_path), read_profile(MODEL_FOLDER)

    def drawn(asked: GenerationParameters, **files: dict[str, str]) -> Tensor:
        (made,) = harness.run(asked, model, **files)
        return torch.from_numpy(harness.pixels(made).copy()).permute(2, 0, 1) / 255

    plain = drawn(DRAWN)
    printed = drawn(replace(DRAWN, loras=(LoraUse(LORA, 1.0),)), lora_files={LORA: str(LORA_FILE)})
    assert ink_distance(printed) < ink_distance(plain) / 2
    lines = edges(draw([scene_at(9, 1)], 256, 256))[0]
    image = harness.artefacts.put_input(base64.b64decode(sent(lines)))
    held = drawn(
        replace(DRAWN, controlnets=(ControlNetUse(CONTROLNET, image, 1.0, 0.0, 1.0),)),
        controlnet_files={CONTROLNET: str(CONTROLNET_FOLDER)},
    )
    assert line_agreement(held, lines) > 0.75
    assert line_agreement(plain, lines) < 0.5


@pytest.mark.parametrize("kind", ["lora", "controlnet"])
def test_training_in_tiny_form_leaves_what_the_registry_takes(tmp_path: Path, kind: str) -> None:
    name = "new.safetensors" if kind == "lora" else "new"
    out = tmp_path / f"{kind}s" / name
    sizes = ["--pictures", "4", "--batch", "2", "--side-px", "32", "64", "--steps", "2"]
    where = ["--checkpoint", str(tmp_path / "ck"), "--out", str(out), "--device", "cpu"]
    train_addon.main([kind, *where, *sizes, "--workers", "0", "--model", str(MODEL_FOLDER)])
    profile = read_profile(MODEL_FOLDER)
    if kind == "lora":
        assert read_lora(out, layers_of(profile))
    else:
        of_model(read_controlnet(out), profile)
