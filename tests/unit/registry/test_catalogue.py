"""Which folders are models, and why others are not. No torch: the folders here are made by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rockiln.registry import Catalogue, load_catalogue

INDEX: dict[str, Any] = {
    "_class_name": "StableDiffusionPipeline",
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
MANIFEST: dict[str, Any] = {
    "schema": 1,
    "title": "Made by hand",
    "licence": "MIT",
    "defaults": {
        "width": 256,
        "height": 192,
        "num_inference_steps": 12,
        "guidance_scale": 4.0,
        "scheduler": "euler",
    },
    "limits": {"min_side_px": 128, "max_side_px": 512},
}
WEIGHTS = {"x": {"dtype": "F32", "shape": [2, 5], "data_offsets": [0, 40]}}
Spoil = Callable[[Path], object]


def put(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def make_folder(folder: Path, *, manifest: Any = MANIFEST) -> Path:
    put(folder / "model_index.json", INDEX)
    if manifest is not None:
        put(folder / "rockiln.json", manifest)
    put(folder / "scheduler" / "scheduler_config.json", {})
    put(folder / "tokenizer" / "tokenizer.json", {})
    header = json.dumps(WEIGHTS).encode()
    for part, stem, kind in (
        ("text_encoder", "model", None),
        ("unet", "diffusion_pytorch_model", "UNet2DConditionModel"),
        ("vae", "diffusion_pytorch_model", "AutoencoderKL"),
    ):
        put(folder / part / "config.json", {"_class_name": kind} if kind else {})
        data = len(header).to_bytes(8, "little") + header + bytes(40)
        (folder / part / f"{stem}.safetensors").write_bytes(data)
    return folder


def edit(name: str, **values: Any) -> Spoil:
    def change(folder: Path) -> None:
        put(folder / name, json.loads((folder / name).read_text()) | values)

    return change


def add(name: str, content: bytes = b"x") -> Spoil:
    return lambda folder: (folder / name).write_bytes(content)


def remove(name: str) -> Spoil:
    return lambda folder: (folder / name).unlink()


def manifest_with(**values: Any) -> Spoil:
    return edit("rockiln.json", **values)


def reasons(root: Path) -> dict[str, str]:
    catalogue = load_catalogue([root])
    assert catalogue.models == {}
    return catalogue.broken


def test_profile_is_what_the_folder_says(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "by-hand")
    (profile,) = load_catalogue([tmp_path]).models.values()
    assert (profile.id, profile.title, profile.licence) == ("by-hand", "Made by hand", "MIT")
    assert (profile.family, profile.path) == ("sd1", str(folder))
    assert (profile.min_side_px, profile.max_side_px) == (128, 512)
    assert vars(profile.defaults) == MANIFEST["defaults"]
    assert set(profile.component_bytes) == {"text_encoder", "unet", "vae"}
    assert profile.component_parameters == {"text_encoder": 10, "unet": 10, "vae": 10}
    assert profile.loaded_bytes(2) == {"text_encoder": 20, "unet": 20, "vae": 20}


def test_folder_without_manifest_has_its_familys_defaults(tmp_path: Path) -> None:
    make_folder(tmp_path / "plain", manifest=None)
    profile = load_catalogue([tmp_path]).models["plain"]
    assert vars(profile.defaults) == {
        "width": 512,
        "height": 512,
        "num_inference_steps": 25,
        "guidance_scale": 7.5,
        "scheduler": "dpmpp_2m",
    }
    assert (profile.min_side_px, profile.max_side_px, profile.title) == (256, 1024, "plain")


def test_first_directory_wins(tmp_path: Path) -> None:
    for name in ("own", "bundled"):
        make_folder(tmp_path / name / "same", manifest=MANIFEST | {"title": name})
    make_folder(tmp_path / "bundled" / "only-here")
    models = load_catalogue([tmp_path / "own", tmp_path / "bundled"]).models
    assert (models["same"].title, len(models)) == ("own", 2)


def test_broken_folder_hides_no_other(tmp_path: Path) -> None:
    make_folder(tmp_path / "sound")
    (make_folder(tmp_path / "broken") / "unet" / "config.json").unlink()
    catalogue = load_catalogue([tmp_path])
    assert set(catalogue.models) == {"sound"}
    assert catalogue.broken == {"broken": "unet/config.json is missing"}


def test_sound_folder_of_the_same_id_further_on_is_taken(tmp_path: Path) -> None:
    (make_folder(tmp_path / "own" / "same") / "unet" / "config.json").unlink()
    make_folder(tmp_path / "bundled" / "same")
    catalogue = load_catalogue([tmp_path / "own", tmp_path / "bundled"])
    assert (set(catalogue.models), catalogue.broken) == ({"same"}, {})


def test_missing_directory_and_other_folders_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "file.txt").write_text("x")
    assert load_catalogue([tmp_path / "missing", tmp_path]) == Catalogue()


@pytest.mark.parametrize(
    ("wanted", "found"), [("b", "b"), ("a", "a"), ("gone", "a")], ids=["wanted", "a", "first"]
)
def test_default_is_the_wanted_model_or_the_first(tmp_path: Path, wanted: str, found: str) -> None:
    make_folder(tmp_path / "b")
    make_folder(tmp_path / "a")
    default = load_catalogue([tmp_path]).default(wanted)
    assert default is not None
    assert default.id == found
    assert Catalogue().default(wanted) is None


@pytest.mark.parametrize("name", ["Upper", "with space", "-dash", "é", "a" * 65])
def test_folder_whose_name_is_no_id_is_broken(tmp_path: Path, name: str) -> None:
    make_folder(tmp_path / name)
    assert "is no model id" in reasons(tmp_path)[name]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        # Files that may not be there.
        (add("unet/diffusion_pytorch_model.bin"), "can run code when it is loaded"),
        (add("model.ckpt"), "can run code when it is loaded"),
        (add("vae/weights.PT"), "can run code when it is loaded"),
        (add("unet/weights.pkl"), "can run code when it is loaded"),
        (add("pipeline.py"), "is code"),
        (add("unet/kernel.so"), "is code"),
        (add("notes.docx"), "is not a file that a model is made of"),
        (lambda folder: os.mkfifo(folder / "pipe.json"), "is not a plain file"),
        # Links that lead out.
        (lambda folder: (folder / "x.json").symlink_to("/etc/passwd"), "leads out"),
        (lambda folder: (folder / "x.json").symlink_to("../../elsewhere.json"), "leads out"),
        (lambda folder: (folder / "linked").symlink_to("/etc"), "leads out"),
        (lambda folder: (folder / "x.json").symlink_to("no such file"), "is not a plain file"),
        # The index.
        (edit("model_index.json", _class_name="KolorsPipeline"), "'KolorsPipeline' is not one"),
        (edit("model_index.json", _class_name=None), "pipeline None is not one"),
        (edit("model_index.json", unet=["my_code", "UNet2DConditionModel"]), "unet is"),
        (edit("model_index.json", vae=["diffusers", "AsymmetricAutoencoderKL"]), "vae is"),
        (edit("model_index.json", text_encoder=[None, None]), "text_encoder is"),
        (edit("model_index.json", tokenizer=7), "tokenizer is 7"),
        (add("model_index.json", b"{"), "is not JSON"),
        (add("model_index.json", b"[]"), "is not a JSON object"),
        (add("model_index.json", b"[" * 100_000), "is not JSON"),
        (add("model_index.json", b"\xff"), "is not JSON"),
        # Components.
        (remove("unet/config.json"), "unet/config.json is missing"),
        (edit("unet/config.json", _class_name="Foreign"), "names 'Foreign'"),
        (edit("unet/config.json", auto_map={"AutoModel": "x.Y"}), "asks for code of its own"),
        (remove("vae/diffusion_pytorch_model.safetensors"), "vae/diffusion_pytorch_model"),
        (add("text_encoder/model.safetensors", b"pickle"), "text_encoder/model.safetensors"),
        (remove("scheduler/scheduler_config.json"), "scheduler_config.json is missing"),
        (remove("tokenizer/tokenizer.json"), "neither tokenizer.json nor vocab.json"),
        # The manifest.
        (add("rockiln.json", b"{"), "rockiln.json"),
        (add("rockiln.json", b" " * 70_000), "is larger than"),
        (manifest_with(schema=2), "schema"),
        (manifest_with(extra=1), "extra"),
        (manifest_with(title=""), "title"),
        (manifest_with(licence=None), "licence"),
        (manifest_with(limits={"min_side_px": 512, "max_side_px": 128}), "min_side_px 512"),
        (manifest_with(limits={"min_side_px": 200, "max_side_px": 512}), "height 192 is outside"),
        (manifest_with(limits={"min_side_px": 100, "max_side_px": 512}), "limits.min_side_px"),
        (manifest_with(defaults=MANIFEST["defaults"] | {"scheduler": "plms"}), "scheduler"),
        (manifest_with(defaults=MANIFEST["defaults"] | {"width": "256"}), "defaults.width"),
        (manifest_with(defaults=MANIFEST["defaults"] | {"num_inference_steps": 0}), "steps"),
    ],
)
def test_unsound_folder_is_broken_with_its_reason(tmp_path: Path, spoil: Spoil, words: str) -> None:
    (tmp_path / "elsewhere.json").write_text("{}")
    root = tmp_path / "models"
    spoil(make_folder(root / "spoilt"))
    assert words in reasons(root)["spoilt"]


def test_folder_that_is_a_link_out_of_the_models_is_broken(tmp_path: Path) -> None:
    make_folder(tmp_path / "elsewhere" / "real")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "linked").symlink_to(tmp_path / "elsewhere" / "real")
    assert "leads out of the models folder" in reasons(tmp_path / "models")["linked"]


@pytest.mark.parametrize(
    "name", ["README.md", "LICENSE", ".gitattributes", "card.png", "unet/notes.txt"]
)
def test_company_of_a_model_card_is_fine(tmp_path: Path, name: str) -> None:
    (make_folder(tmp_path / "sound") / name).write_bytes(b"x")
    assert set(load_catalogue([tmp_path]).models) == {"sound"}


def test_half_precision_variant_is_counted_where_it_is_the_only_one(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "half")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".fp16.safetensors"))
    assert "unet" in load_catalogue([tmp_path]).models["half"].component_bytes


def test_registry_domain_and_protocol_bring_no_torch(tmp_path: Path) -> None:
    """The record's readers and the wheel guard likewise: api, supervisor and builds use them."""
    make_folder(tmp_path / "sound")
    program = (
        "import sys, pathlib\n"
        "import rockiln.worker.protocol, rockiln.domain.plan, rockiln.engine.record\n"
        "import rockiln.engine.picture_file, rockiln.platforms.wheel_guard\n"
        "import rockiln.engine.child\n"
        "from rockiln.registry import load_catalogue\n"
        f"assert load_catalogue([pathlib.Path({str(tmp_path)!r})]).models\n"
        "print([name for name in ('torch', 'diffusers', 'transformers') if name in sys.modules])\n"
    )
    source = Path(__file__).resolve().parents[3] / "service" / "src"
    said = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(source)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert said.stdout.strip() == "[]"
