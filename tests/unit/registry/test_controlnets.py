"""ControlNets at the gate: what is sound, what is not and why, and what fits which model.

The tricks of ``test_hostile_models``, on the one component that comes by itself.
"""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from rockiln.domain.errors import BrokenModelError
from rockiln.registry.architecture import unet_facts
from rockiln.registry.controlnet_shapes import controlnet_tensors
from rockiln.registry.controlnets import STEM, controlnet_paths, read_controlnet
from support.known_models import CONFIGS
from support.paper_controlnet import CONTROLNET, write_paper_controlnet, write_zeros
from support.paper_model import UNET
from unit.registry.test_hostile_models import (
    instead,
    link,
    module,
    nested,
    pickled,
    put,
    raw,
    says,
    script,
    zipped,
)

WEIGHTS, CONFIG = f"{STEM}.safetensors", "config.json"
Spoil = Callable[[Path, Path], object]


def config(**values: Any) -> Spoil:
    return says(CONFIG, **values)


def missing(name: str) -> Spoil:
    return lambda folder, _: (folder / name).unlink()


def other_weights(folder: Path, _canary: Path) -> None:
    write_zeros(folder / WEIGHTS, {"conv_in.weight": (8, 4, 3, 3)})


def integers(folder: Path, _canary: Path) -> None:
    write_zeros(folder / WEIGHTS, {"conv_in.weight": (8, 4, 3, 3)}, dtype="I16")


CORPUS: dict[str, tuple[Spoil, str]] = {
    "pickle-beside": (put(f"{STEM}.bin", zipped), "can run code"),
    "pickle-as-weights": (instead(WEIGHTS, pickled), "truncated|header over|not a safetensors"),
    "pickle-5-as-weights": (instead(WEIGHTS, partial(pickled, protocol=5)), "truncated|header|not"),
    "zip-as-weights": (instead(WEIGHTS, zipped), "truncated|header over|not a safetensors"),
    "zip-as-card": (put("card.png", zipped), "an archive or a program"),
    "code": (put("controlnet.py", module), "is code"),
    "script": (put("notes.txt", script), "an archive or a program"),
    "link-out": (link("card.json", "/etc/passwd"), "leads out"),
    "link-to-weights": (link(WEIGHTS, "/dev/zero"), "leads out"),
    "no-weights": (missing(WEIGHTS), "safetensors is missing"),
    "half-weights": (raw(WEIGHTS, lambda data: data[: len(data) // 2]), "truncated"),
    "huge-header": (raw(WEIGHTS, lambda data: (1 << 40).to_bytes(8, "little") + data), "header"),
    "other-weights": (other_weights, "the weights lack"),
    "integers": (integers, "weights of I16"),
    "no-json": (raw(CONFIG, lambda _: b"{"), "is not JSON"),
    "another-class": (config(_class_name="ControlNetXSAdapter"), "not ControlNetModel"),
    "no-class": (config(_class_name=None), "not ControlNetModel"),
    "auto-map": (config(auto_map={"AutoModel": "evil.Evil"}), "code of its own"),
    "foreign-key": (config(quantization_config={}), "is no setting"),
    "nested": (config(block_out_channels=nested(30)), "values within"),
    "wider": (config(cross_attention_dim=64), "by the config"),
    "more-layers": (config(layers_per_block=2), "by the config"),
    "fewer-levels": (
        config(block_out_channels=[8], down_block_types=["DownBlock2D"]),
        "the config",
    ),
    "endless-layers": (config(layers_per_block=10**9), "no ControlNet here has"),
    "endless-blocks": (config(transformer_layers_per_block=10**9), "no ControlNet here has"),
    "endless-width": (config(cross_attention_dim=10**9), "no ControlNet here has"),
    "endless-levels": (
        config(block_out_channels=[8] * 99, down_block_types=["DownBlock2D"] * 99),
        "no ControlNet here has",
    ),
    "text-for-numbers": (config(block_out_channels="wide"), "does not tell its shape"),
    "numbers-for-text": (config(down_block_types=[1, 2]), "does not tell its shape"),
    "no-hint": (config(conditioning_embedding_out_channels=None), "does not tell"),
    "empty-hint": (config(conditioning_embedding_out_channels=[]), "does not tell"),
    "other-blocks": (config(down_block_types=["AttnDownBlock2D"] * 2), "no ControlNet here has"),
    "global-pool": (config(global_pool_conditions=True), "only False is run"),
    "class-embedding": (config(class_embed_type="timestep"), "only None is run"),
    "other-activation": (config(act_fn="os.system"), "only 'silu' is run"),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_paper_controlnet(tmp_path_factory.mktemp("models") / "controlnets" / "edges")


def test_what_the_cases_spoil_is_sound(sound: Path) -> None:
    found = read_controlnet(sound)
    assert found.facts.hint_channels == 4
    assert found.facts.parameters > 0
    found.of_unet(UNET, 8)


@pytest.mark.parametrize("case", CORPUS)
def test_hostile_folder_is_refused_and_nothing_of_it_runs(
    case: str, sound: Path, tmp_path: Path
) -> None:
    folder, canary = tmp_path / "models" / "controlnets" / "bad", tmp_path / "canary"
    shutil.copytree(sound, folder)
    spoil, words = CORPUS[case]
    spoil(folder, canary)
    with pytest.raises(BrokenModelError, match=words):
        read_controlnet(folder)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("own", "base", "words"),
    [
        ({"cross_attention_dim": 64}, {}, "numbers per token of text: 64, the model's: 32"),
        ({"in_channels": 9}, {}, "channels of latents: 9"),
        ({"block_out_channels": [8, 8]}, {}, "channels of its levels: 8 and 8, the model's: 8 and"),
        ({"layers_per_block": 2}, {}, "layers of its levels: 2 and 2, the model's: 1 and 1"),
        ({"conditioning_embedding_out_channels": [4, 8]}, {}, "pixels per latent: 2, the model's"),
        (
            {},
            {"addition_embed_type": "text_time", "projection_class_embeddings_input_dim": 80},
            "other input: none and none, the model's: text_time and 80",
        ),
    ],
)
def test_one_of_another_base_is_told_so(
    tmp_path: Path, own: dict[str, Any], base: dict[str, Any], words: str
) -> None:
    found = read_controlnet(write_paper_controlnet(tmp_path / "controlnets" / "edges", **own))
    with pytest.raises(BrokenModelError, match=words):
        found.of_unet({**UNET, **base}, 8)


def test_one_without_attention_reads_no_text(tmp_path: Path) -> None:
    found = read_controlnet(
        write_paper_controlnet(
            tmp_path / "controlnets" / "small",
            down_block_types=["DownBlock2D"] * 2,
            mid_block_type="UNetMidBlock2D",
            cross_attention_dim=1280,
        )
    )
    found.of_unet(UNET, 8)


def test_folders_are_found_by_name_the_first_directory_first(sound: Path, tmp_path: Path) -> None:
    write_paper_controlnet(tmp_path / "controlnets" / "edges")
    write_paper_controlnet(tmp_path / "controlnets" / "depth")
    (tmp_path / "controlnets" / "no config").mkdir()
    (tmp_path / "controlnets" / "-x").mkdir()
    (tmp_path / "controlnets" / "-x" / CONFIG).write_text("{}")
    for name in ("depth", "pose"):
        (tmp_path / "controlnets" / f"{name}.safetensors").write_bytes(b"")
    found = controlnet_paths([sound.parents[1], tmp_path])
    lone = tmp_path / "controlnets" / "pose.safetensors"
    assert found == {"edges": sound, "depth": tmp_path / "controlnets" / "depth", "pose": lone}


def test_old_configs_lack_what_has_a_default(tmp_path: Path) -> None:
    folder = write_paper_controlnet(tmp_path / "controlnets" / "old")
    assert "conditioning_channels" not in CONTROLNET
    assert read_controlnet(folder).shape.mid_transformer_layers == 1


@pytest.mark.slow
@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_the_tensors_on_paper_are_those_of_the_class(name: str, small: bool) -> None:
    """The registry judges headers without torch; these are the field's own sizes."""
    known = inspect.signature(diffusers.ControlNetModel.__init__).parameters
    unet = {key: value for key, value in CONFIGS[name]["unet"].items() if key in known}
    if small:
        plain = ["DownBlock2D"] * len(unet["block_out_channels"])
        unet |= {"down_block_types": plain, "mid_block_type": "UNetMidBlock2D"}
    with torch.device("meta"):
        made = diffusers.ControlNetModel.from_config(unet)
    shapes = {key: tuple(tensor.shape) for key, tensor in made.state_dict().items()}
    config = dict(made.config)
    assert controlnet_tensors(unet_facts(config), config) == shapes
