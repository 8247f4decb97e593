"""Transformers in one ``.safetensors`` file: which model they become, and files that lie.

The tricks of ``test_hostile_files`` on this kind, and some of its own.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from rockiln.engine.families.flux import FAMILY
from rockiln.registry import load_catalogue
from rockiln.registry.loras import layers_of
from rockiln.registry.revision import revision, signature_of
from rockiln.registry.transformer_names import transformer_tensors
from support.hostile_file import assert_load_runs_nothing, assert_refused
from support.known_models import CONFIGS
from support.tiny_flow import make_tiny_flux, make_tiny_sd3
from support.transformer_file import (
    WEIGHTS,
    json_bytes,
    write_gguf,
    write_safetensors,
    write_scaled,
)
from unit.registry.test_hostile_files import NAME, header, instead, lender, pipe, raw, rename
from unit.registry.test_hostile_models import link, pickled, put, says, script, zipped

FIRST = "time_in.in_layer.weight"
PREFIX = "model.diffusion_model."
# Of flux1-dev.safetensors and sd3_medium.safetensors. The first has 780, also in fp8 and with the
# prefix (AUTOMATIC1111/stable-diffusion-webui#16484).
PUBLISHED: dict[str, dict[str, tuple[int, ...]]] = {
    "flux": {
        "guidance_in.in_layer.weight": (3072, 256),
        "img_in.weight": (3072, 64),
        "double_blocks.18.txt_attn.qkv.weight": (9216, 3072),
        "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
        "single_blocks.37.linear1.weight": (21504, 3072),
        "single_blocks.0.linear2.weight": (3072, 15360),
        "final_layer.linear.weight": (64, 3072),
    },
    "sd3": {
        "pos_embed": (1, 36864, 1536),
        "x_embedder.proj.weight": (1536, 16, 2, 2),
        "joint_blocks.0.context_block.attn.qkv.weight": (4608, 1536),
        "joint_blocks.23.context_block.adaLN_modulation.1.weight": (3072, 1536),
        "joint_blocks.23.x_block.adaLN_modulation.1.weight": (9216, 1536),
        "y_embedder.mlp.0.weight": (1536, 2048),
    },
}


def written(dtype: Any = torch.float32, **changes: Any) -> Any:
    return lambda root, _: write_safetensors(root / "lender", root / NAME, dtype, **changes)


def scaled(**changes: Any) -> Any:
    return lambda root, _: write_scaled(root / "lender", root / NAME, **changes)


CORPUS: dict[str, tuple[Any, str]] = {
    "ckpt": (instead("hostile.ckpt", zipped), "can run code"),
    "pt": (instead("hostile.pt", pickled), "can run code"),
    **{
        f"pickle-{protocol}": (instead(NAME, partial(pickled, protocol=protocol)), "")
        for protocol in (0, 2, 5)
    },
    "zip": (instead(NAME, zipped), "header over"),
    "script": (instead(NAME, script), "header over"),
    "zip-behind-weights": (header(lambda _: None, tail=b"PK\x03\x04" + bytes(64)), "padded"),
    "half": (raw(lambda data: data[: len(data) // 2]), "truncated"),
    "one-byte-short": (raw(lambda data: data[:-1]), "truncated"),
    "dtype-of-objects": (header(lambda said: said[FIRST].update(dtype="O")), "not a safetensors"),
    "offsets-outside": (header(lambda said: said[FIRST].update(data_offsets=[0, 1 << 50])), "fit"),
    "giant-shape": (header(lambda said: said[FIRST].update(shape=[1 << 62, 8])), "does not fit"),
    "integers": (header(lambda said: said[FIRST].update(dtype="I32")), "is of I32; read are F32"),
    "bytes": (written(**{FIRST: torch.zeros(8192, 1, dtype=torch.uint8)}), "is of U8"),
    "float64": (written(torch.float64), "is of F64"),
    "other-fp8": (written(torch.float8_e5m2), "is of F8_E5M2"),
    "scale-of-float32": (
        written(**{"img_in.scale_weight": torch.ones(())}), "beside no weight in fp8 of its own",
    ),
    "scale-of-nothing": (scaled(**{"x.scale_weight": torch.ones(())}), "beside no weight in fp8"),
    "two-scales": (
        scaled(**{"img_in.weight_scale": torch.ones(())}), "beside no weight in fp8 of its own",
    ),
    **{
        f"scale-{number}": (
            scaled(**{"img_in.scale_weight": torch.tensor(number)}), "which is no scale",
        )
        for number in (0.0, -1.0, 1e-30, 1e30, float("inf"), float("nan"))
    },
    "scale-of-two-numbers": (
        scaled(**{"img_in.scale_weight": torch.ones(2)}), "is not one number in F32",
    ),
    "scale-of-rows": (
        scaled(**{"img_in.scale_weight": torch.ones(32, 1)}), "is not one number in F32",
    ),
    "scale-of-integers": (
        scaled(**{"img_in.scale_weight": torch.ones((), dtype=torch.int32)}), "is not one number",
    ),
    "scale-lacking": (
        scaled(**{"img_in.scale_weight": None}), "'img_in.weight' lacks the scale that the others",
    ),
    "mark-alone": (
        written(torch.float8_e4m3fn, scaled_fp8=torch.zeros(2).to(torch.float8_e4m3fn)),
        "lacks the scale",
    ),
    **{
        f"format-{name}": (scaled(**{"img_in.comfy_quant": quant}), words)
        for name, quant, words in (
            ("int8", json_bytes({"format": "int8_tensorwise"}), "only float8_e4m3fn is read"),
            ("other", json_bytes({"format": "float8_e4m3fn", "convrot": True}), "only float8_e4m"),
            ("list", json_bytes([["float8_e4m3fn"]]), "only float8_e4m3fn is read"),
            ("nested", torch.full((4096,), ord("["), dtype=torch.uint8), "is no JSON"),
            ("giant", torch.full((5000,), ord(" "), dtype=torch.uint8), "is no format"),
            ("of-floats", torch.ones(4), "is no format"),
        )
    },
    "format-without-scale": (
        scaled(**{
            "img_in.comfy_quant": json_bytes({"format": "float8_e4m3fn"}),
            "img_in.scale_weight": None,
        }),
        "lacks the scale",
    ),
    "blocks-with-scales": (
        written(**{"img_in.weight_scale_inv": torch.ones(2, 2)}), "a scale of another kind",
    ),
    "quantised-elsewhere": (
        written(**{"img_in.comfy_quant": torch.ones(9, dtype=torch.uint8)}), "is no JSON",
    ),
    "other-shape": (
        header(lambda said: said[FIRST].update(shape=said[FIRST]["shape"][::-1])),
        "is [256, 32], not [32, 256]",
    ),
    "flat": (header(lambda said: said[FIRST].update(shape=[32 * 256])), "is [8192], not"),
    "renamed": (header(lambda said: rename(said, FIRST, "x")), "is missing (and 1 more)"),
    "lacking": (written(**{FIRST: None}), f"{FIRST} is missing"),
    "name-as-path": (header(lambda said: rename(said, FIRST, "../../../etc/x")), "is missing"),
    "giant-name": (header(lambda said: rename(said, FIRST, "x" * 1_000_000)), "is missing"),
    "foreign": (written(**{"double_blocks.9.x": torch.ones(2)}), "'double_blocks.9.x' is no part"),
    "twice": (written(**{PREFIX + FIRST: torch.ones(32, 256)}), "stands twice"),
    "link-out": (link(NAME, "/etc/passwd"), "leads out"),
    "link-up": (link(NAME, "../outside.safetensors"), "leads out"),
    "dangling": (link(NAME, "nowhere"), "not a plain file"),
    "pipe": (pipe, "not a plain file"),
    "manifest-link-out": (link("hostile.rockiln.json", "/etc/passwd"), "leads out"),
    "manifest-as-pickle": (put("hostile.rockiln.json", pickled), "hostile.rockiln.json"),
    "lender-with-code": (lender(put("transformer/x.py", script)), "needs a model folder"),
    "lender-with-pickle": (lender(put("vae/x.bin", zipped)), "needs a model folder"),
    "endless-lender": (
        lender(says("transformer/config.json", num_layers=10**9)), "so many layers has none",
    ),
    "no-lender": (lambda root, _: shutil.rmtree(root / "lender"), "needs a model folder"),
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("sound")
    make_tiny_flux(root / "lender")
    write_safetensors(root / "lender", root / NAME)
    return root


@pytest.fixture
def root(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "models")
    shutil.copy(sound / NAME, tmp_path / "outside.safetensors")
    return tmp_path / "models"


@pytest.mark.parametrize("family", PUBLISHED)
def test_names_are_those_of_the_published_files(family: str) -> None:
    config = CONFIGS[family]["transformer"]
    found = {each.original: each.shape for each in transformer_tensors(config, family)}
    assert {name: found.get(name) for name in PUBLISHED[family]} == PUBLISHED[family]
    if family == "flux":
        assert len(found) == 780


def test_a_file_has_the_profile_of_the_folder_beside_it(sound: Path) -> None:
    catalogue = load_catalogue([sound], quantisation_allowed=True)
    assert (catalogue.broken, sorted(catalogue.models)) == ({}, ["hostile", "lender"])
    found, folder = catalogue.models["hostile"], catalogue.models["lender"]
    assert found.configs == folder.path
    for name in (
        "family", "defaults", "schedulers", "features", "component_parameters", "architecture",
        "quantised", "quantisable", "root",
    ):  # fmt: skip
        assert getattr(found, name) == getattr(folder, name), name
    assert found.component_bytes["transformer"] == 4 * found.component_parameters["transformer"]
    assert layers_of(found) == layers_of(folder)


def test_fp8_is_told_and_takes_a_byte_a_number(root: Path) -> None:
    write_safetensors(root / "lender", root / "fp8.safetensors", torch.float8_e4m3fn)
    models = load_catalogue([root], quantisation_allowed=True).models
    found = models["fp8"]
    said = found.quantised["transformer"].as_dict()
    assert said == {"kind": "f8_e4m3", "exact": False, "weight_error": 0.029}
    assert "transformer" not in found.quantisable
    numbers = found.component_parameters["transformer"]
    assert numbers <= found.loaded_bytes(2)["transformer"] < 1.05 * numbers


def test_a_lender_has_the_shape_of_the_file(root: Path) -> None:
    """Not just the family: the guided FLUX lends nothing to one that is not, SD3 to neither."""
    make_tiny_sd3(root / "a-first")
    make_tiny_flux(root.parent / "other", guided=False)
    write_safetensors(root.parent / "other", root / "fast.safetensors", prefix=PREFIX)
    catalogue = load_catalogue([root])
    assert (
        "; lender: fast.safetensors is no flux transformer of this shape: guidance_in"
        in (catalogue.broken["fast"])
    )
    shutil.copytree(root.parent / "other", root / "z-last")
    found = load_catalogue([root]).models
    assert [Path(found[name].configs).name for name in ("fast", "hostile")] == ["z-last", "lender"]


@pytest.mark.parametrize("suffix", [".safetensors", ".gguf"])
def test_signature_and_revision_follow_what_is_drawn_with(root: Path, suffix: str) -> None:
    cache = root.parent / "cache"
    write_gguf(root / "lender", root / "in-few-bits.gguf", "Q4_0")
    name = {".safetensors": "hostile", ".gguf": "in-few-bits"}[suffix]

    def look() -> tuple[str, str]:
        profile = load_catalogue([root]).models[name]
        found = revision(Path(profile.path), cache, Path(profile.configs))
        return signature_of(profile), found

    seen = [look()]
    (root / "lender" / "transformer" / WEIGHTS).touch()
    assert look() == seen[0]  # the lender's transformer is not the file's
    make_tiny_flux(root.parent / "other", seed=1)
    encoder = Path("text_encoder_2") / "model.safetensors"
    shutil.copy(root.parent / "other" / encoder, root / "lender" / encoder)
    seen.append(look())
    write_safetensors(root.parent / "other", root / NAME)
    write_gguf(root.parent / "other", root / "in-few-bits.gguf", "Q4_0")
    seen.append(look())
    assert len({signature for signature, _ in seen}) == len({found for _, found in seen}) == 3


@pytest.mark.parametrize("case", CORPUS)
def test_hostile_file_is_refused_and_nothing_of_it_runs(case: str, root: Path) -> None:
    assert_refused(root, *CORPUS[case])


@pytest.mark.parametrize("case", [name for name in CORPUS if name not in {"pipe", "no-lender"}])
def test_loading_past_the_gate_runs_nothing_either(case: str, root: Path) -> None:
    assert_load_runs_nothing(root, CORPUS[case][0], FAMILY, NAME)
