"""What is refused when a folder of SD 1.x is loaded, and what a prompt loses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rockiln.domain.errors import BrokenModelError
from rockiln.engine.families.sd1 import FAMILY
from support.tiny_sd1 import make_tiny_sd1


def load(folder: Path) -> Any:
    return FAMILY.load(folder, torch.float32, torch.device("cpu"))


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "tiny"))


def _drop_a_weight(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights.pop("conv_in.weight")
    save_file(weights, path, metadata={"format": "pt"})


def _reshape_a_weight(folder: Path) -> None:
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["decoder.conv_in.bias"] = torch.zeros(3)
    save_file(weights, path, metadata={"format": "pt"})


def _edit(name: str, **values: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return edit


def _remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_drop_a_weight, "1 weights are missing or of another shape, such as conv_in.weight"),
        (_reshape_a_weight, "vae"),
        (_remove("unet/config.json"), "unet"),
        (_remove("text_encoder/model.safetensors"), "text_encoder/model.safetensors is missing"),
        (_remove("scheduler/scheduler_config.json"), "scheduler_config.json is missing"),
        (_edit("unet/config.json", in_channels=9), "unet"),
        (_edit("unet/config.json", time_cond_proj_dim=32), "unet"),
        (_edit("tokenizer/tokenizer_config.json", model_max_length=512), "window 512"),
    ],
)
def test_unsound_folder_is_refused(folder: Path, spoil: Callable[[Path], None], words: str) -> None:
    spoil(folder)
    with pytest.raises(BrokenModelError) as raised:
        load(folder)
    assert words in raised.value.detail


def test_half_precision_variant_is_loaded_where_it_is_the_only_one(
    folder: Path, tiny_folder: Path
) -> None:
    for name in (
        "unet/diffusion_pytorch_model",
        "vae/diffusion_pytorch_model",
        "text_encoder/model",
    ):
        path = folder / f"{name}.safetensors"
        weights = {key: tensor.half() for key, tensor in load_file(path).items()}
        save_file(weights, folder / f"{name}.fp16.safetensors", metadata={"format": "pt"})
        path.unlink()
    half = load(folder).modules["unet"].conv_in.weight
    full = load(tiny_folder).modules["unet"].conv_in.weight
    assert half.dtype == torch.float32
    assert torch.equal(half, full.half().float())


def test_autoencoder_of_old_names_is_read(folder: Path, tiny_folder: Path) -> None:
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    for new, old in {
        "to_q": "query",
        "to_k": "key",
        "to_v": "value",
        "to_out.0": "proj_attn",
    }.items():
        weights = {name.replace(f".{new}.", f".{old}."): tensor for name, tensor in weights.items()}
    assert "decoder.mid_block.attentions.0.query.weight" in weights
    save_file(weights, path, metadata={"format": "pt"})
    read, usual = (load(each).modules["vae"].state_dict() for each in (folder, tiny_folder))
    assert all(torch.equal(read[name], tensor) for name, tensor in usual.items())


def test_loaded_modules_are_ready_to_infer(tiny_folder: Path) -> None:
    for module in load(tiny_folder).modules.values():
        assert not module.training
        assert not any(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize(
    ("text", "dropped"),
    [
        ("", None),
        ("a " * 75, None),
        ("a " * 75 + "boat", (1, 75, "boat")),
        ("a " * 80, (5, 75, "a a a a a")),
    ],
)
def test_text_past_the_window_is_told(
    tiny_folder: Path, text: str, dropped: tuple[int, int, str] | None
) -> None:
    told = FAMILY.dropped_text(load(tiny_folder), text)
    assert (told and (told.tokens, told.window_tokens, told.text)) == dropped


def test_model_folder_depends_on_its_seed_alone(tmp_path: Path) -> None:
    def contents(folder: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }

    one, same, other = (
        contents(make_tiny_sd1(tmp_path / name, seed=seed))
        for name, seed in (("one", 0), ("same", 0), ("other", 1))
    )
    assert one == same != other
