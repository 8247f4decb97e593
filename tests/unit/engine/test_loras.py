"""LoRAs: what they do to a picture, that they leave no trace, and which are refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.model import ModelProfile
from rockiln.domain.request import LoraUse
from rockiln.registry.addons import SUFFIX
from rockiln.registry.loras import find_loras, layers_of, lora_files, read_lora
from support.engine_harness import EngineHarness, largest_difference, read_profile
from support.parameters import parameters
from support.reference import Reference
from support.tiny_flow import make_tiny_sd3
from support.tiny_qwen import make_tiny_flux2, make_tiny_qwen_image, make_tiny_z_image
from support.tiny_sd1 import make_tiny_sd1
from support.tiny_sdxl import make_tiny_sdxl

pytestmark = pytest.mark.slow

RANK = 2
ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
CONVOLUTION = "down_blocks.0.resnets.0.conv1"
TEXT = "encoder.layers.1.self_attn.q_proj"
Tensors = dict[str, torch.Tensor]


def matrices(seed: int, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[Any, Any]]:
    """Layer → (down, up), large enough to be seen."""
    source = torch.Generator().manual_seed(seed)
    found = {}
    for layer, (out, *rest) in shapes.items():
        down = torch.randn((RANK, *rest), generator=source)
        up = torch.randn((out, RANK, *(1 for _ in rest[1:])), generator=source) * 0.2
        found[layer] = (down, up)
    return found


UNET: dict[str, tuple[int, ...]] = {
    f"{ATTENTION}.to_q": (32, 32),
    f"{ATTENTION}.to_out.0": (32, 32),
    CONVOLUTION: (16, 16, 3, 3),
}
TEXT_LAYERS: dict[str, tuple[int, ...]] = {TEXT: (32, 32)}


def kohya(seed: int, alpha: float | None = 1.0) -> Tensors:
    tensors: Tensors = {}
    for prefix, layers in (("lora_unet_", UNET), ("lora_te_text_model_", TEXT_LAYERS)):
        for layer, (down, up) in matrices(seed, layers).items():
            flat = prefix + layer.replace(".", "_")
            tensors[f"{flat}.lora_down.weight"], tensors[f"{flat}.lora_up.weight"] = down, up
            if alpha is not None:
                tensors[f"{flat}.alpha"] = torch.tensor(alpha)
    return tensors


def peft(seed: int) -> Tensors:
    tensors: Tensors = {}
    for prefix, layers in (("unet.", UNET), ("text_encoder.text_model.", TEXT_LAYERS)):
        for layer, (down, up) in matrices(seed, layers).items():
            tensors[f"{prefix}{layer}.lora_A.weight"] = down
            tensors[f"{prefix}{layer}.lora_B.weight"] = up
    return tensors


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Writes LoRAs; name → path."""

    def write(**files: Tensors) -> dict[str, str]:
        (tmp_path / "loras").mkdir(exist_ok=True)
        for name, tensors in files.items():
            save_file(tensors, tmp_path / "loras" / f"{name}{SUFFIX}")
        return find_loras([tmp_path], [LoraUse(name, 1.0) for name in files])

    return write


def fuse(pipeline: Any, seed: int, factor: float) -> None:
    """What a LoRA means, written out."""
    for module, layers in ((pipeline.unet, UNET), (pipeline.text_encoder, TEXT_LAYERS)):
        for layer, (down, up) in matrices(seed, layers).items():
            weight = module.get_submodule(layer).weight
            weight.data += factor * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)


@pytest.mark.parametrize(
    ("tensors", "scale"),
    [(kohya(1), 0.5), (kohya(1, None), 1.0), (kohya(1, 4.0), 2.0), (peft(1), 1.0)],
    ids=["alpha 1", "no alpha", "alpha 4", "peft"],
)
def test_a_picture_equals_the_reference_with_fused_weights(  # noqa: PLR0917 (by name)
    harness: EngineHarness,
    tiny: ModelProfile,
    tiny_folder: Path,
    save: Callable[..., dict[str, str]],
    tensors: Tensors,
    scale: float,
) -> None:
    asked = parameters(loras=(LoraUse("ink", 0.75),))
    (picture,) = harness.run(asked, tiny, lora_files=save(ink=tensors))
    reference = Reference(StableDiffusionPipeline, tiny_folder)
    reference.lay_out(torch.channels_last)
    (plain,) = reference.draw(asked)
    fuse(reference.pipeline, 1, 0.75 * scale)
    (expected,) = reference.draw(asked)
    assert largest_difference(harness.pixels(picture), expected) == 0
    assert largest_difference(plain, expected) > 5


@pytest.mark.parametrize(
    ("make", "layer", "width"),
    [
        (make_tiny_flux2, "single_transformer_blocks.0.attn.to_out", 128),
        (make_tiny_z_image, "layers.0.attention.to_q", 48),
        (make_tiny_qwen_image, "transformer_blocks.0.attn.to_q", 32),
    ],
)
def test_a_transformer_takes_a_lora_as_if_it_were_trained_in(  # noqa: PLR0917 (by name)
    harness: EngineHarness,
    tmp_path: Path,
    save: Callable[..., dict[str, str]],
    make: Callable[[Path], Path],
    layer: str,
    width: int,
) -> None:
    plain, fused = make(tmp_path / "models" / "plain"), make(tmp_path / "models" / "fused")
    file = fused / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    out = len(weights[f"{layer}.weight"])
    ((down, up),) = matrices(1, {layer: (out, width)}).values()
    weights[f"{layer}.weight"] += 0.75 * (up @ down)
    save_file(weights, file, {"format": "pt"})
    named = f"transformer.{layer}"
    files = save(ink={f"{named}.lora_A.weight": down, f"{named}.lora_B.weight": up})
    profile = read_profile(plain)
    assert read_lora(Path(files["ink"]), layers_of(profile))
    asked = parameters(model="plain", scheduler="flow_euler", loras=(LoraUse("ink", 0.75),))
    (picture,) = harness.run(asked, profile, lora_files=files)
    (expected,) = harness.run(replace(asked, loras=(), model="fused"), read_profile(fused))
    (without,) = harness.run(replace(asked, loras=()), profile)
    assert largest_difference(harness.pixels(picture), harness.pixels(expected)) == 0
    assert largest_difference(harness.pixels(picture), harness.pixels(without)) > 0


def test_pictures_after_a_removal_are_those_before(
    harness: EngineHarness, tiny: ModelProfile, save: Callable[..., dict[str, str]]
) -> None:
    files = save(ink=kohya(1), oil=kohya(2))
    (before,) = harness.run(parameters(), tiny)
    both = parameters(loras=(LoraUse("ink", 0.8), LoraUse("oil", -0.5)))
    (mixed,) = harness.run(both, tiny, lora_files=files)
    (one,) = harness.run(parameters(loras=(LoraUse("ink", 0.8),)), tiny, lora_files=files)
    (again,) = harness.run(both, tiny, lora_files=files)
    (after,) = harness.run(parameters(), tiny)
    assert before.digest == after.digest
    assert mixed.digest == again.digest
    assert len({before.digest, mixed.digest, one.digest}) == 3
    details = mixed.details["parameters"]
    assert isinstance(details, dict)
    assert list(details["loras"]) == [
        {"name": "ink", "weight": 0.8},
        {"name": "oil", "weight": -0.5},
    ]
    digests = mixed.details["loras"]
    assert isinstance(digests, dict)
    assert digests["ink"] == hashlib.sha256(Path(files["ink"]).read_bytes()).hexdigest()
    assert "loras" not in before.details
    assert b"<lora:ink:0.8> <lora:oil:-0.5>" in harness.data(mixed)


def test_jobs_with_and_without_a_lora_in_one_loop_are_what_they_are_alone(
    harness: EngineHarness, tiny: ModelProfile, save: Callable[..., dict[str, str]]
) -> None:
    files = save(ink=kohya(1))
    with_it = parameters(loras=(LoraUse("ink", 1.0),))
    alone = [
        harness.run(asked, tiny, lora_files=files)[0].digest for asked in (parameters(), with_it)
    ]
    harness.events.clear()
    harness.submit(parameters(), tiny, job_id="plain")
    harness.submit(with_it, tiny, job_id="inked", lora_files=files)
    harness.finish()
    together = [harness.encoded(job)[0].digest for job in ("plain", "inked")]
    assert together == alone


def test_a_lora_for_the_original_blocks_names_is_understood(tmp_path: Path) -> None:
    profile = read_profile(make_tiny_sdxl(tmp_path / "tiny-sdxl"))
    # The tiny model's second level: input block 3 * level + 1 + layer.
    name = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    (tmp_path / "loras").mkdir()
    path = tmp_path / "loras" / f"x{SUFFIX}"
    save_file(
        {
            f"{name}.lora_down.weight": torch.zeros(1, 32),
            f"{name}.lora_up.weight": torch.zeros(32, 1),
        },
        path,
    )
    (layer,) = read_lora(path, layers_of(profile))
    assert (layer.component, layer.layer) == ("unet", f"{ATTENTION}.to_q")


def _first(tensors: Tensors, **changes: Any) -> Tensors:
    flat = "lora_unet_" + f"{ATTENTION}.to_q".replace(".", "_")
    replaced = {f"{flat}.{name}.weight": tensor for name, tensor in changes.items()}
    return {**tensors, **{name: value for name, value in replaced.items() if value is not None}}


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (_first(kohya(1), lora_down=torch.zeros(2, 64)), "another base"),
        (_first(kohya(1), lora_up=torch.zeros(32, 3)), "another base"),
        ({"lora_unet_no_such_layer.lora_down.weight": torch.zeros(1, 1),
          "lora_unet_no_such_layer.lora_up.weight": torch.zeros(1, 1)}, "another kind of model"),
        ({"lora_unet_x.hada_w1_a": torch.zeros(1, 1)}, "no plain LoRA"),
        ({"lora_unet_x.lora_down.weight": torch.zeros(1, 1)}, "no two matrices"),
        ({"emb_params": torch.zeros(1, 32)}, "no plain LoRA"),
        ({"lora_unet_x.alpha": torch.zeros(1, dtype=torch.int32)}, "weights of I32"),
        ({}, "changes nothing"),
    ],
)  # fmt: skip
def test_what_is_no_lora_of_this_model_is_refused(
    tiny: ModelProfile, save: Callable[..., dict[str, str]], tensors: Tensors, words: str
) -> None:
    (path,) = save(bad=tensors).values()
    with pytest.raises(BrokenModelError, match=words):
        read_lora(Path(path), layers_of(tiny))


def test_a_lora_of_another_family_is_refused(
    tmp_path: Path, save: Callable[..., dict[str, str]]
) -> None:
    (path,) = save(ink=kohya(1)).values()
    sd3 = read_profile(make_tiny_sd3(tmp_path / "models" / "tiny-sd3"))
    with pytest.raises(BrokenModelError, match="another kind of model"):
        read_lora(Path(path), layers_of(sd3))


def test_only_plain_files_within_the_models_folder_are_read(tmp_path: Path) -> None:
    loras = tmp_path / "models" / "loras"
    loras.mkdir(parents=True)
    secret = tmp_path / "secret.safetensors"
    save_file(kohya(1), secret)
    (loras / "link.safetensors").symlink_to(secret)
    (loras / "torn.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    (loras / "pickle.ckpt").write_bytes(b"\x80\x04")
    (loras / "..hidden.safetensors").write_bytes(b"")
    found = lora_files([tmp_path / "models"])
    assert sorted(found) == ["link", "torn"]
    for name, words in (("link", "leads out"), ("torn", "truncated")):
        with pytest.raises(BrokenModelError, match=words):
            read_lora(found[name], {})


def test_another_model_does_not_work_beside_the_originals_of_these_weights(
    harness: EngineHarness, tiny: ModelProfile, tmp_path: Path, save: Callable[..., dict[str, str]]
) -> None:
    """They wait in the host's memory, where nobody plans with them once the job is over."""
    harness.run(parameters(), tiny)
    unet = harness.shelf.take(tiny, harness.plan(parameters(), tiny)).model.components.modules[
        "unet"
    ]
    weight = unet.get_submodule(CONVOLUTION).weight
    plain = weight.detach().clone()
    changed = parameters(loras=(LoraUse("style", 1.0),))
    harness.run(changed, tiny, lora_files=save(style=kohya(1)))
    assert not torch.equal(weight, plain)
    other = read_profile(make_tiny_sd1(tmp_path / "models" / "other"))
    harness.shelf.take(other, harness.plan(parameters(), other))
    assert torch.equal(weight, plain)
