"""ControlNets in one file at the gate: whose names they have, what their shapes tell, and lies."""

from __future__ import annotations

import inspect
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint

from rockiln.domain.errors import BrokenModelError
from rockiln.registry.architecture import unet_facts
from rockiln.registry.checkpoint import CONFIGS_FOLDER
from rockiln.registry.controlnet_file import read_controlnet_file
from rockiln.registry.controlnet_shapes import controlnet_tensors
from rockiln.registry.controlnets import ControlNet, read_controlnet
from rockiln.registry.json_file import read_json
from rockiln.registry.revision import revision, signature
from support.paper_controlnet import CONTROLNET, write_paper_controlnet, write_zeros
from support.paper_model import UNET
from support.tiny_controlnet import original_names
from unit.registry.test_hostile_files import Spoil, header, instead, raw, rename
from unit.registry.test_hostile_models import link, pickled, script, zipped
from unit.registry.test_single_files import write_header

Shapes = dict[str, tuple[int, ...]]
NAME = "hostile.safetensors"
FIRST = "control_model.input_blocks.0.0.weight"
# Of the published files (control_v11p_sd15_canny and its like), as their headers have them.
PUBLISHED: Shapes = {
    "time_embed.2.weight": (1280, 1280),
    "input_blocks.0.0.weight": (320, 4, 3, 3),
    "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
    "input_blocks.3.0.op.weight": (320, 320, 3, 3),
    "input_blocks.4.0.skip_connection.weight": (640, 320, 1, 1),
    "input_blocks.11.0.out_layers.3.weight": (1280, 1280, 3, 3),
    "input_hint_block.0.weight": (16, 3, 3, 3),
    "input_hint_block.4.weight": (32, 16, 3, 3),
    "input_hint_block.14.weight": (320, 256, 3, 3),
    "zero_convs.11.0.weight": (1280, 1280, 1, 1),
    "middle_block.1.proj_in.weight": (1280, 1280, 1, 1),
    "middle_block.2.emb_layers.1.weight": (1280, 1280),
    "middle_block_out.0.bias": (1280,),
}


def tensors_of(config: dict[str, Any], prefix: str | None = None) -> Shapes:
    found = controlnet_tensors(unet_facts(config), config)
    names = original_names(list(found))
    return found if prefix is None else {prefix + names[each]: found[each] for each in found}


def unet_of(kind: str) -> dict[str, Any]:
    """The field's own, as it ships for files of that kind."""
    return read_json(CONFIGS_FOLDER / kind / "unet" / "config.json")


def class_config(kind: str, *, small: bool = False) -> dict[str, Any]:
    """Of the ControlNet that diffusers makes from such a UNet."""
    known = inspect.signature(diffusers.ControlNetModel.__init__).parameters
    config = {key: each for key, each in unet_of(kind).items() if key in known}
    if small:
        plain = ["DownBlock2D"] * len(config["block_out_channels"])
        config |= {"down_block_types": plain, "mid_block_type": "UNetMidBlock2D"}
    with torch.device("meta"):
        return dict(diffusers.ControlNetModel.from_config(config).config)


@pytest.mark.parametrize("prefix", ["control_model.", "", None], ids=str)
@pytest.mark.parametrize(("name", "small"), [("sd1", 0), ("sd2", 0), ("sdxl", 0), ("sdxl", 1)])
def test_shapes_and_the_base_tell_the_config_of_a_real_one(
    tmp_path: Path, name: str, small: int, prefix: str | None
) -> None:
    wanted = class_config(name, small=bool(small))
    if small:  # nothing there is projected
        wanted["use_linear_projection"] = False
    path = tmp_path / "controlnets" / "edges.safetensors"
    path.parent.mkdir()
    write_header(path, tensors_of(wanted, prefix))
    found = read_controlnet(path).of_unet(unet_of(name), 8)
    expected = unet_facts(wanted)
    for key in (
        "channels", "layers", "transformer_layers", "mid_transformer_layers", "heads",
        "latent_channels",
    ):  # fmt: skip
        assert getattr(found.facts.shape, key) == getattr(expected, key), key
    if not small:
        assert found.facts.shape == expected
    for key in (
        "norm_num_groups", "norm_eps", "addition_time_embed_dim", "addition_embed_type",
        "projection_class_embeddings_input_dim", "use_linear_projection", "flip_sin_to_cos",
        "conditioning_channels", "down_block_types", "mid_block_type",
    ):  # fmt: skip
        assert plain(found.config.get(key)) == plain(wanted[key]), key
    hints = [16, 32, 96, 256]
    assert found.config["conditioning_embedding_out_channels"] == hints
    if name == "sd1" and prefix:
        held = tensors_of(wanted, "")
        assert {each: held.get(each) for each in PUBLISHED} == PUBLISHED
        assert len(held) == 340


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_names_are_those_of_diffusers_conversion(tmp_path: Path, name: str) -> None:
    """Which loses what SDXL's are told beside the text."""
    config = class_config(name)
    path = tmp_path / "controlnets" / "edges.safetensors"
    path.parent.mkdir()
    originals = tensors_of(config, "control_model.")
    write_header(path, originals)
    found = read_controlnet_file(path)
    places = {each: torch.tensor(place) for place, each in enumerate(originals)}
    converted = convert_controlnet_checkpoint(dict(places), config)
    assert {each.item(): ours for ours, each in converted.items()} == {
        places[original].item(): ours
        for original, ours in found.names.items()
        if not ours.startswith("add_embedding.")
    }


def written(prefix: str | None = "control_model.", **changes: Any) -> Spoil:
    """Another one; ``changes`` of its config."""
    return lambda root, _: write_zeros(root / NAME, tensors_of({**CONTROLNET, **changes}, prefix))


def with_tensors(dtype: str = "F16", /, **tensors: tuple[int, ...] | None) -> Spoil:
    def spoil(root: Path, _canary: Path) -> None:
        all_of = {**tensors_of(CONTROLNET, "control_model."), **tensors}
        write_zeros(root / NAME, {key: each for key, each in all_of.items() if each}, dtype)

    return spoil


def only(**tensors: tuple[int, ...]) -> Spoil:
    return lambda root, _: write_zeros(root / NAME, tensors)


def pipe(root: Path, _canary: Path) -> None:
    (root / NAME).unlink()
    os.mkfifo(root / NAME)


CORPUS: dict[str, tuple[Spoil, str]] = {
    **{
        f"pickle-{protocol}": (instead(NAME, partial(pickled, protocol=protocol)), "header|trunc")
        for protocol in (0, 2, 5)
    },
    "zip": (instead(NAME, zipped), "header over"),
    "script": (instead(NAME, script), "header over"),
    "half": (raw(lambda data: data[: len(data) // 2]), "truncated"),
    "one-byte-short": (raw(lambda data: data[:-1]), "truncated"),
    "zip-behind-weights": (header(lambda _: None, tail=b"PK\x03\x04" + bytes(64)), "padded"),
    "dtype-of-objects": (header(lambda said: said[FIRST].update(dtype="O")), "not a safetensors"),
    "integers": (with_tensors("I16"), "weights of I16"),
    "giant-shape": (header(lambda said: said[FIRST].update(shape=[1 << 62, 8])), "does not fit"),
    "flat": (header(lambda said: said[FIRST].update(shape=[8 * 4 * 9])), "no conv_in.weight in it"),
    "turned": (header(lambda said: said[FIRST].update(shape=[4, 8, 3, 3])), "conv_in.weight is"),
    "renamed": (header(lambda said: rename(said, FIRST, "x")), "no conv_in.weight in it"),
    "name-as-path": (header(lambda said: rename(said, FIRST, "../../../etc/x")), "no conv_in"),
    "giant-name": (header(lambda said: rename(said, FIRST, "x" * 1_000_000)), "no conv_in"),
    "number-of-block": (
        header(lambda said: rename(said, FIRST, "control_model.input_blocks.99999.0.weight")),
        "no conv_in",
    ),
    "giant-number": (
        with_tensors(**{f"control_model.input_hint_block.{'9' * 5000}.weight": (1,)}),
        "the config has not",
    ),
    "many-tensors": (
        only(**{f"zero_convs.{number}.0.weight": (1,) for number in range(5001)}),
        "5001 tensors: too many",
    ),
    "foreign": (with_tensors(lora_controlnet=(1,)), "have 'lora_controlnet', the config has not"),
    "difference": (with_tensors(difference=(1,)), "have 'difference'"),
    "union": (with_tensors(task_embedding=(6, 8)), "have 'task_embedding'"),
    "lacking": (with_tensors(**{"control_model.zero_convs.2.0.bias": None}), "the weights lack"),
    "lacking-a-block": (
        with_tensors(**{"control_model.zero_convs.2.0.weight": None}),
        "by the config",
    ),
    "twice": (with_tensors(**{"middle_block_out.0.bias": (16,)}), "two tensors are the same"),
    "more-classes": (with_tensors(**{"control_model.label_emb.0.0.weight": (32, 16)}), "lack"),
    "many-layers": (written(layers_per_block=33), "no ControlNet here has"),
    "no-tensors": (raw(lambda _: (2).to_bytes(8, "little") + b"{}"), "no conv_in"),
    "lora": (only(**{"lora_unet_x.lora_up.weight": (2, 2)}), "no conv_in.weight in it"),
    "lllite": (only(**{"lllite_unet_x.cond_emb.weight": (2, 2)}), "no conv_in.weight in it"),
    "flux": (only(**{"controlnet_blocks.0.weight": (2, 2)}), "no conv_in.weight in it"),
    "grey": (written(conditioning_channels=1), "conditioning_channels is 1; only 3 is run"),
    "link-out": (link(NAME, "/etc/passwd"), "leads out"),
    "link-to-device": (link(NAME, "/dev/zero"), "leads out"),
    "link-up": (link(NAME, "../../outside.safetensors"), "leads out"),
    "dangling": (link(NAME, "nowhere"), "not a plain file"),
    "pipe": (pipe, "not a plain file"),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("models") / "controlnets" / NAME
    path.parent.mkdir()
    write_zeros(path, tensors_of(CONTROLNET, "control_model."))
    return path


def test_a_file_is_what_a_folder_of_it_is(sound: Path, tmp_path: Path) -> None:
    folder = write_paper_controlnet(tmp_path / "controlnets" / "edges")
    one, other = (read_controlnet(path).of_unet(UNET, 8) for path in (sound, folder))
    assert one.facts == other.facts
    assert isinstance(one, ControlNet)
    with pytest.raises(BrokenModelError, match="another base: its numbers per token of text: 32"):
        read_controlnet(sound).of_unet({**UNET, "cross_attention_dim": 64}, 8)
    with pytest.raises(BrokenModelError, match="does not tell its shape"):
        read_controlnet(sound).of_unet({**UNET, "attention_head_dim": [4]}, 8)


def test_one_that_is_pooled_is_known_by_its_name_alone(sound: Path, tmp_path: Path) -> None:
    path = tmp_path / "controlnets" / "control_v11e_sd15_Shuffle_fp16.safetensors"
    path.parent.mkdir()
    shutil.copy(sound, path)
    with pytest.raises(BrokenModelError, match="global_pool_conditions"):
        read_controlnet(path)


def test_signature_and_revision_follow_the_file(sound: Path, tmp_path: Path) -> None:
    path = tmp_path / "edges.safetensors"
    shutil.copy(sound, path)
    before = signature(path), revision(path, tmp_path / "cache")
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b"x")
    os.utime(path, ns=(0, 0))
    after = signature(path), revision(path, tmp_path / "cache")
    assert before[0] != after[0]
    assert before[1] != after[1]


@pytest.mark.parametrize("case", CORPUS)
def test_hostile_file_is_refused_and_nothing_of_it_runs(
    case: str, sound: Path, tmp_path: Path
) -> None:
    root, canary = tmp_path / "models" / "controlnets", tmp_path / "canary"
    shutil.copytree(sound.parent, root)
    shutil.copy(sound, tmp_path / "outside.safetensors")
    spoil, words = CORPUS[case]
    spoil(root, canary)
    with pytest.raises(BrokenModelError, match=words) as refusal:
        read_controlnet(root / NAME)
    assert len(str(refusal.value)) < 500
    assert not canary.exists()
