"""Models in one file: what the registry makes of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from rockiln.registry import load_catalogue
from rockiln.registry.checkpoint import SHIPPED, configs_shapes
from rockiln.registry.checkpoint_names import FAMILIES, original_shapes
from rockiln.registry.loras import layers_of
from rockiln.registry.manifest import FAMILY_MANIFESTS
from rockiln.registry.revision import revision, signature_of
from support.known_models import PARAMETERS
from support.single_file import write_checkpoint
from support.tiny_flow import make_tiny_flux
from support.tiny_sd1 import MANIFEST, make_tiny_sd1
from support.tiny_sdxl import make_tiny_sdxl

MAKERS = {"sd1": make_tiny_sd1, "sdxl": make_tiny_sdxl}
# Tensors of the published files (v1-5-pruned-emaonly, v2-1_768-ema-pruned and sd_xl_base_1.0), as
# their headers have them, one for each rule of the names.
PUBLISHED: dict[str, dict[str, tuple[int, ...]]] = {
    "sd1": {
        "model.diffusion_model.time_embed.2.bias": (1280,),
        "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
        "model.diffusion_model.input_blocks.3.0.op.weight": (320, 320, 3, 3),
        "model.diffusion_model.input_blocks.4.0.skip_connection.weight": (640, 320, 1, 1),
        "model.diffusion_model.input_blocks.7.1.transformer_blocks.0.attn2.to_k.weight": (
            1280, 768,
        ),
        "model.diffusion_model.middle_block.1.proj_in.weight": (1280, 1280, 1, 1),
        "model.diffusion_model.middle_block.2.out_layers.3.weight": (1280, 1280, 3, 3),
        "model.diffusion_model.output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
        "model.diffusion_model.output_blocks.8.2.conv.weight": (640, 640, 3, 3),
        "model.diffusion_model.output_blocks.11.0.in_layers.0.weight": (640,),
        "model.diffusion_model.out.2.weight": (4, 320, 3, 3),
        "first_stage_model.encoder.down.1.block.0.nin_shortcut.weight": (256, 128, 1, 1),
        "first_stage_model.encoder.down.2.downsample.conv.weight": (512, 512, 3, 3),
        "first_stage_model.decoder.mid.attn_1.proj_out.weight": (512, 512, 1, 1),
        "first_stage_model.decoder.up.0.block.2.conv2.weight": (128, 128, 3, 3),
        "first_stage_model.decoder.up.3.upsample.conv.weight": (512, 512, 3, 3),
        "first_stage_model.post_quant_conv.weight": (4, 4, 1, 1),
        "cond_stage_model.transformer.text_model.encoder.layers.11.mlp.fc1.weight": (3072, 768),
    },
    "sd2": {
        "model.diffusion_model.input_blocks.1.1.proj_in.weight": (320, 320),
        "model.diffusion_model.input_blocks.7.1.transformer_blocks.0.attn2.to_k.weight": (
            1280, 1024,
        ),
        "cond_stage_model.model.token_embedding.weight": (49408, 1024),
        "cond_stage_model.model.positional_embedding": (77, 1024),
        "cond_stage_model.model.transformer.resblocks.22.attn.in_proj_weight": (3072, 1024),
        "cond_stage_model.model.transformer.resblocks.22.mlp.c_fc.bias": (4096,),
        "cond_stage_model.model.ln_final.weight": (1024,),
    },
    "sdxl": {
        "model.diffusion_model.label_emb.0.0.weight": (1280, 2816),
        "model.diffusion_model.input_blocks.8.1.transformer_blocks.9.attn1.to_q.weight": (
            1280, 1280,
        ),
        "model.diffusion_model.middle_block.1.proj_in.weight": (1280, 1280),
        "model.diffusion_model.output_blocks.5.2.conv.weight": (640, 640, 3, 3),
        "conditioner.embedders.0.transformer.text_model.final_layer_norm.bias": (768,),
        "conditioner.embedders.1.model.positional_embedding": (77, 1280),
        "conditioner.embedders.1.model.text_projection": (1280, 1280),
        "conditioner.embedders.1.model.ln_final.weight": (1280,),
        "conditioner.embedders.1.model.transformer.resblocks.31.attn.in_proj_weight": (3840, 1280),
        "conditioner.embedders.1.model.transformer.resblocks.0.mlp.c_proj.weight": (1280, 5120),
    },
}  # fmt: skip
SD2_PARAMETERS = {"text_encoder": 340_387_840, "unet": 865_910_724, "vae": 83_653_863}
# How many tensors those files have of each part, tables of positions not counted.
COUNTS = {
    "sd1": {"unet": 686, "vae": 248, "text_encoder": 196},
    "sd2": {"unet": 686, "vae": 248, "text_encoder": 280},
    "sdxl": {"unet": 1680, "vae": 248, "text_encoder": 196, "text_encoder_2": 389},
}


@pytest.fixture(scope="module", params=MAKERS)
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("models")
    MAKERS[request.param](root / "tiny")
    write_checkpoint(root / "tiny", root / "one_file-1.0.safetensors")
    return root


def write_header(path: Path, tensors: dict[str, tuple[int, ...]], dtype: str = "F16") -> None:
    """A file whose tensors are holes: real sizes, no bytes on the disk."""
    header: dict[str, Any] = {}
    place = 0
    for name, shape in tensors.items():
        size = math.prod(shape) * {"F16": 2, "I64": 8, "F8_E4M3": 1}[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + place)


def shipped_names(kind: str) -> dict[str, tuple[int, ...]]:
    (configs,) = (folder for folder in SHIPPED if folder.name == kind)
    shapes = configs_shapes(configs, FAMILIES[kind])
    return {
        name: shape
        for component, named in shapes.items()
        for name, shape in original_shapes(kind, component, named).items()
    }


def test_a_file_has_the_profile_of_the_folder_that_it_was_made_from(models: Path) -> None:
    catalogue = load_catalogue([models])
    assert catalogue.broken == {}
    folder, file = catalogue.models["tiny"], catalogue.models["one_file-1.0"]
    assert file.title == file.id
    assert file.configs == folder.path
    for name in (
        "family", "defaults", "min_side_px", "max_side_px", "side_grid_px", "schedulers",
        "features", "component_parameters", "architecture", "root",
    ):  # fmt: skip
        assert getattr(file, name) == getattr(folder, name), name
    float32_bytes = {part: 4 * count for part, count in file.component_parameters.items()}
    assert file.component_bytes == float32_bytes
    assert layers_of(file) == layers_of(folder)


def test_a_manifest_beside_the_file_says_its_defaults(models: Path) -> None:
    manifest = models / "one_file-1.0.rockiln.json"
    manifest.write_text(json.dumps(MANIFEST | {"title": "Own", "licence": "CC0-1.0"}))
    try:
        profile = load_catalogue([models]).models["one_file-1.0"]
        manifest.write_text("{}")
        broken = load_catalogue([models]).broken["one_file-1.0"]
    finally:
        manifest.unlink()
    assert (profile.title, profile.licence) == ("Own", "CC0-1.0")
    assert broken.startswith("one_file-1.0.rockiln.json: ")


def test_a_folder_goes_before_a_file_of_its_id(models: Path, tmp_path: Path) -> None:
    write_checkpoint(models / "tiny", tmp_path / "tiny.safetensors")
    assert load_catalogue([tmp_path, models]).models["tiny"].configs == ""


def test_a_file_without_a_folder_of_its_shape_is_broken(models: Path, tmp_path: Path) -> None:
    write_checkpoint(models / "tiny", tmp_path / "alone.safetensors")
    catalogue = load_catalogue([tmp_path])
    assert catalogue.models == {}
    assert "fits the configs of no sd" in catalogue.broken["alone"]


def test_signature_and_revision_follow_file_and_configs(tmp_path: Path) -> None:
    root, cache = tmp_path / "models", tmp_path / "cache"
    make_tiny_sd1(root / "tiny")
    write_checkpoint(root / "tiny", root / "file.safetensors")

    def look() -> tuple[str, str]:
        profile = load_catalogue([root]).models["file"]
        found = revision(Path(profile.path), cache, Path(profile.configs))
        return signature_of(profile), found

    seen = [look()]
    (root / "tiny" / "unet" / "diffusion_pytorch_model.safetensors").touch()
    assert look() == seen[0]  # the lender's weights are not the file's
    scheduler = root / "tiny" / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text().replace("0.012", "0.013"))
    seen.append(look())
    weight = torch.zeros(4)
    write_checkpoint(
        root / "tiny",
        root / "file.safetensors",
        None,
        **{"model.diffusion_model.out.2.bias": weight},
    )
    seen.append(look())
    assert len({signature for signature, _ in seen}) == len({found for _, found in seen}) == 3


@pytest.mark.parametrize("kind", PUBLISHED)
def test_names_are_those_of_the_published_files(kind: str) -> None:
    names = shipped_names(kind)
    assert {name: names.get(name) for name in PUBLISHED[kind]} == PUBLISHED[kind]


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [("sd1", PARAMETERS["sd15"]), ("sd2", SD2_PARAMETERS), ("sdxl", PARAMETERS["sdxl"])],
)
def test_a_file_of_the_usual_shape_needs_no_folder_beside_it(
    kind: str, parameters: dict[str, int], tmp_path: Path
) -> None:
    """With what such files carry along: schedules, a second set of weights, tables."""
    inert = {
        "alphas_cumprod": (1000,),
        "model_ema.diffusion_modelout2bias": (4,),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": (1, 77),
        "conditioner.embedders.1.model.logit_scale": (),
        "denoiser.sigmas": (1000,),
    }
    if kind == "sd2":
        place = "cond_stage_model.model"
        inert |= {
            f"{place}.transformer.resblocks.23.ln_1.bias": (1024,),
            f"{place}.text_projection": (1024, 1024),
            f"{place}.attn_mask": (77, 77),
            "v_pred": (),
        }
    family = FAMILIES[kind]
    write_header(tmp_path / "usual.safetensors", shipped_names(kind) | inert)
    catalogue = load_catalogue([tmp_path])
    assert catalogue.broken == {}
    profile = catalogue.models["usual"]
    assert profile.family == family
    assert profile.component_parameters == parameters
    assert profile.weights_bytes == 2 * sum(parameters.values())
    assert profile.defaults == FAMILY_MANIFESTS[family].defaults.as_model_defaults()
    assert profile.architecture is not None
    (configs,) = (folder for folder in SHIPPED if folder.name == kind)
    assert Path(profile.configs) == configs
    shapes = configs_shapes(configs, family)
    counts = {part: len(original_shapes(kind, part, shapes[part])) for part in shapes}
    assert counts == COUNTS[kind]


UNET = "model.diffusion_model."


def test_what_a_file_says_of_its_training_is_taken_and_a_manifest_knows_better(
    tmp_path: Path,
) -> None:
    path = tmp_path / "marked.safetensors"
    write_header(path, shipped_names("sdxl") | {"v_pred": (), "ztsnr": ()})
    said = {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    marked = load_catalogue([tmp_path]).models["marked"].scheduler_config
    assert marked == said | {"rescale_betas_zero_snr": True}
    manifest = FAMILY_MANIFESTS["sdxl"].model_dump(by_alias=True)
    manifest["scheduler_config"] = {"rescale_betas_zero_snr": False}
    path.with_name("marked.rockiln.json").write_text(json.dumps(manifest))
    marked = load_catalogue([tmp_path]).models["marked"].scheduler_config
    assert marked == said | {"rescale_betas_zero_snr": False}


def test_what_stable_diffusion_2_predicts_is_told_and_never_guessed(tmp_path: Path) -> None:
    """Its versions differ in that and have the same tensors."""
    path = tmp_path / "two.safetensors"
    write_header(path, shipped_names("sd2"))
    reason = load_catalogue([tmp_path]).broken["two"]
    assert "does not say what it predicts" in reason
    assert "two.rockiln.json as scheduler_config.prediction_type, epsilon or v_prediction" in reason
    manifest = FAMILY_MANIFESTS["sd1"].model_dump(by_alias=True)
    for said in ("epsilon", "v_prediction"):
        manifest["scheduler_config"] = {"prediction_type": said}
        path.with_name("two.rockiln.json").write_text(json.dumps(manifest))
        profile = load_catalogue([tmp_path]).models["two"]
        assert profile.scheduler_config == {"prediction_type": said}
        assert profile.family == "sd1"
    manifest["scheduler_config"] = {"timestep_spacing": "trailing"}
    path.with_name("two.rockiln.json").write_text(json.dumps(manifest))
    assert "does not say" in load_catalogue([tmp_path]).broken["two"]


def test_a_folder_of_its_shape_tells_it_unless_another_differs(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_tiny_sd1(tmp_path / name)
    write_checkpoint(tmp_path / "one", tmp_path / "file.safetensors", "sd2")
    found = load_catalogue([tmp_path]).models["file"]
    assert (Path(found.configs).name, found.scheduler_config) == ("one", {})
    said = MANIFEST | {"scheduler_config": {"prediction_type": "v_prediction"}}
    (tmp_path / "one" / "rockiln.json").write_text(json.dumps(said))
    assert "does not say what it predicts" in load_catalogue([tmp_path]).broken["file"]
    (tmp_path / "two" / "rockiln.json").write_text(json.dumps(said))
    found = load_catalogue([tmp_path]).models["file"]
    assert found.scheduler_config == {"prediction_type": "v_prediction"}


def test_a_flow_has_no_such_schedule(tmp_path: Path) -> None:
    make_tiny_flux(tmp_path / "flow")
    path = tmp_path / "flow" / "rockiln.json"
    manifest = FAMILY_MANIFESTS["flux"].model_dump(by_alias=True)
    manifest["scheduler_config"] = {"prediction_type": "v_prediction"}
    path.write_text(json.dumps(manifest))
    assert "are flows" in load_catalogue([tmp_path]).broken["flow"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({f"{UNET}input_blocks.0.0.weight": (320, 9, 3, 3)}, "is [320, 9, 3, 3], not [320, 4"),
        ({f"{UNET}out.2.bias": None}, "out.2.bias is missing"),
        ({"some.adapter.weight": (4,)}, "'some.adapter.weight' is no part of it"),
        ({"cond_stage_model.model.ln_final.weight": (4,)}, "ln_final.weight is [4], not [1024]"),
        ({"edm_vpred.sigma_max": ()}, "EDM's v-prediction"),
        (
            {f"{UNET}double_blocks.0.img_attn.qkv.weight": (4,)},
            "a FLUX transformer; it needs a model",
        ),
        ({"double_blocks.0.processor.qkv_lora1.down.weight": (4,)}, "something of FLUX.1"),
        ({f"{UNET}joint_blocks.0.context_block.attn.qkv.weight": (4,)}, "Stable Diffusion 3"),
        ({"conditioner.embedders.0.model.ln_final.weight": (4,)}, "refiner"),
        ({"control_model.input_hint_block.0.weight": (4,)}, "ControlNet"),
        ({"lora_unet_mid.lora_down.weight": (4,)}, "a LoRA"),
    ],
)
def test_variants_that_are_not_run_say_what_they_are(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    names = {
        name: shape for name, shape in (shipped_names("sd1") | changes).items() if shape is not None
    }
    write_header(tmp_path / "variant.safetensors", names)
    catalogue = load_catalogue([tmp_path])
    assert catalogue.models == {}
    assert words in catalogue.broken["variant"]


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"emb_params": (2, 768)}, "a textual inversion"),
        ({"clip_l": (2, 768), "clip_g": (2, 1280)}, "a textual inversion"),
        ({"down_blocks.0.resnets.0.conv1.weight": (4,)}, "one part of a model"),
        ({"encoder.conv_in.weight": (4,)}, "one part of a model"),
        ({"double_blocks.0.img_attn.qkv.weight": (4,)}, "a FLUX transformer; it needs a model"),
        ({f"{UNET}out.2.bias": (4,)}, "no text_encoder"),
        ({"weight": (4,)}, "no checkpoint of Stable Diffusion"),
        ({}, "no checkpoint of Stable Diffusion"),
    ],
)
def test_files_that_are_no_model_say_so(
    tensors: dict[str, tuple[int, ...]], words: str, tmp_path: Path
) -> None:
    write_header(tmp_path / "other.safetensors", tensors)
    assert words in load_catalogue([tmp_path]).broken["other"]


@pytest.mark.parametrize("dtype", ["F8_E4M3", "I64"])
def test_weights_of_a_foreign_dtype_are_refused(dtype: str, tmp_path: Path) -> None:
    write_header(tmp_path / "small.safetensors", shipped_names("sd1"), dtype)
    assert f"has weights of {dtype}" in load_catalogue([tmp_path]).broken["small"]
