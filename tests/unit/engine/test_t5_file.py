"""T5 in a ``.gguf`` file, in the place of its folder's weights: names of llama.cpp."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline, StableDiffusion3Pipeline
from diffusers.quantizers.gguf.utils import GGUFParameter, dequantize_gguf_tensor
from gguf import GGMLQuantizationType
from torch import nn
from transformers import T5Config, T5EncoderModel

from rockiln.engine.families import FAMILIES
from rockiln.engine.picture_file import read_record
from rockiln.engine.quantisation import QuantisedLinear
from rockiln.registry import load_catalogue
from rockiln.registry.revision import signature_of
from rockiln.registry.transformer_names import T5, diffusers_shapes, transformer_tensors
from support.engine_harness import EngineHarness, largest_difference
from support.parameters import parameters
from support.reference import Reference
from support.tiny_flow import make_tiny_flux, make_tiny_sd3
from support.transformer_file import quantise, write_t5

pytestmark = pytest.mark.slow

ASKED = parameters(scheduler="flow_euler", num_inference_steps=2, width=64, height=64)
CPU = torch.device("cpu")
FLOW: dict[str, tuple[Callable[..., Path], Any, str]] = {
    "flux": (make_tiny_flux, FluxPipeline, "text_encoder_2"),
    "sd3": (make_tiny_sd3, StableDiffusion3Pipeline, "text_encoder_3"),
}
# Of t5-v1_1-xxl-encoder as a .gguf file, from the outermost dimension on.
PUBLISHED = {
    "token_embd.weight": (32128, 4096),
    "enc.blk.0.attn_rel_b.weight": (32, 64),
    "enc.blk.23.attn_q.weight": (4096, 4096),
    "enc.blk.23.ffn_gate.weight": (10240, 4096),
    "enc.blk.23.ffn_down.weight": (4096, 10240),
    "enc.blk.23.ffn_norm.weight": (4096,),
    "enc.output_norm.weight": (4096,),
}


@pytest.fixture(scope="module", params=FLOW)
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``plain``, and the same with its T5 in files of three kinds."""
    root: Path = tmp_path_factory.mktemp(f"models-{request.param}")
    make, _, part = FLOW[request.param]
    make(root / "plain", inner=96)
    for kind in ("F32", "Q8_0", "Q4_0"):
        place = root / kind.lower() / part
        shutil.copytree(root / "plain", place.parent)
        write_t5(place, place / f"t5-{kind}.gguf", kind)
        (place / "model.safetensors").unlink()
    return root


def reference_of(models: Path, kind: GGMLQuantizationType) -> Reference:
    """diffusers' pipeline, T5's matrices as diffusers brings that kind back."""
    _, pipeline, part = FLOW[load_catalogue([models]).models["plain"].family]
    reference = Reference(pipeline, models / "plain")
    for each in (reference.pipeline.vae, reference.pipeline.transformer):
        each.to(memory_format=torch.channels_last)
    for module in getattr(reference.pipeline, part).modules():
        if isinstance(module, nn.Linear | nn.Embedding) and module.weight.shape[1] % 32 == 0:
            held = torch.from_numpy(quantise(module.weight.detach().numpy(), kind))
            back = dequantize_gguf_tensor(GGUFParameter(held, quant_type=kind))
            module.weight.data = back.float()
    return reference


@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
def test_pictures_are_those_of_diffusers_with_the_numbers_of_the_file(
    harness: EngineHarness, models: Path, kind: str
) -> None:
    profile = load_catalogue([models]).models[kind]
    (expected,) = reference_of(models, GGMLQuantizationType[kind.upper()]).draw(ASKED)
    (made,) = harness.run(ASKED, profile)
    assert largest_difference(harness.pixels(made), expected) == 0
    record = read_record(harness.data(made)) or {}
    part = FLOW[profile.family][2]
    assert list(record["quantisation"]) == [part]
    if kind == "q4_0":
        chosen = harness.plan(ASKED, profile, placement="sequential_offload")
        (moved,) = harness.run(ASKED, profile, chosen=chosen)
        # As FLUX.1's from its folder: sums of copied weights may come out one off.
        assert largest_difference(harness.pixels(moved), expected) <= 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("kind", ["f32", "q4_0"])
def test_planned_bytes_and_dtypes_are_those_of_the_loaded_part(
    models: Path, kind: str, dtype: torch.dtype
) -> None:
    """Tables come back to full width; in float16 the layers that overflow are in float32."""
    profile = load_catalogue([models]).models[kind]
    family, part = FAMILIES[profile.family], FLOW[profile.family][2]
    t5 = family.load(models / kind, dtype, CPU).modules[part]
    assert t5.encoder.embed_tokens.weight is t5.shared.weight
    assert t5.shared.weight.dtype == dtype
    wide = t5.get_submodule("encoder.block.1.layer.1.DenseReluDense.wo")
    assert getattr(wide, "compute_dtype", wide.weight.dtype) is torch.float32
    held = [each for each in t5.modules() if isinstance(each, QuantisedLinear)]
    assert bool(held) == (kind != "f32")
    if kind != "f32":
        quantised = profile.quantised[part]
        assert sum(each.weight.numel() for each in held) == quantised.held_bytes
        found = sum(each.numel() * each.element_size() for each in t5.parameters())
        assert found == profile.loaded_bytes(dtype.itemsize)[part]
    else:
        assert not profile.quantised
        plain = family.load(models / "plain", dtype, CPU).modules[part].state_dict()
        assert all(torch.equal(each, plain[name]) for name, each in t5.state_dict().items())


def test_names_and_shapes_are_those_of_transformers_and_of_published_files() -> None:
    config = T5Config(
        vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    for given in (config, T5Config(num_layers=2)):
        with torch.device("meta"):
            module = T5EncoderModel(given)
        tensors = transformer_tensors(given.to_dict(), T5)
        assert diffusers_shapes(tensors) == {
            name: tuple(each.shape)
            for name, each in module.state_dict().items()
            if name != "encoder.embed_tokens.weight"
        }
    shapes = {each.original: each.shape for each in transformer_tensors(config.to_dict(), T5)}
    assert {name: shapes.get(name) for name in PUBLISHED} == PUBLISHED
    assert len(shapes) == 219


@pytest.fixture
def root(models: Path, tmp_path: Path) -> Path:
    for name in ("q8_0", "f32"):
        shutil.copytree(models / name, tmp_path / "models" / name)
    return tmp_path / "models"


def part_of(root: Path) -> str:
    return FLOW[load_catalogue([root]).models["f32"].family][2]


def test_a_file_in_more_bits_can_be_rounded_at_load(root: Path) -> None:
    part, manifest = part_of(root), root / "f32" / "rockiln.json"
    before = load_catalogue([root]).models["f32"]
    said = json.loads(manifest.read_text()) | {"quantisation": {part: "q8_0"}}
    manifest.write_text(json.dumps(said))
    after = load_catalogue([root]).models["f32"]
    assert after.quantised[part].at_load
    assert signature_of(before) != signature_of(after)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"token_embd.weight": None}, "token_embd.weight is missing"),
        ({"enc.blk.1.ffn_gate.weight": "x"}, "enc.blk.1.ffn_gate.weight is missing (and 1 more)"),
        ({"enc.blk.0.attn_rel_b.weight": "enc.blk.1.attn_rel_b.weight"}, "attn_rel_b.weight is mi"),
        ({"enc.blk.0.attn_q.weight": "dec.blk.0.attn_q.weight"}, "attn_q.weight is missing"),
        ({"enc.blk.0.attn_q.weight": "../../x"}, "attn_q.weight is missing"),
    ],
)
def test_a_file_of_another_shape_is_refused(
    root: Path, models: Path, changes: dict[str, Any], words: str
) -> None:
    part = part_of(root)
    write_t5(models / "plain" / part, root / "q8_0" / part / "t5-Q8_0.gguf", **changes)
    assert words in load_catalogue([root]).broken["q8_0"]


def test_a_file_that_lies_is_refused(root: Path) -> None:
    part = part_of(root)
    path = root / "q8_0" / part / "t5-Q8_0.gguf"
    sound = path.read_bytes()
    config = path.with_name("config.json")
    said = json.loads(config.read_text())
    for content, words in (
        (sound[: len(sound) // 2], "truncated"),
        (b"\x80\x05" + sound, "begin as one"),
        (b"PK\x03\x04" + sound, "begin as one"),
        (sound + bytes(4096), "padded"),
    ):
        path.write_bytes(content)
        assert words in load_catalogue([root]).broken["q8_0"], words
    path.write_bytes(sound)
    for changes, words in (
        ({"num_layers": 3}, "enc.blk.2.attn_norm.weight is missing"),
        ({"d_ff": 64}, "enc.blk.0.ffn_gate.weight is [96, "),
        ({"d_model": None}, "does not tell its shape"),
        ({"num_layers": 10**9}, "so many layers has none"),
        ({"model_type": "clip_text_model"}, "is of the model type"),
    ):
        config.write_text(json.dumps(said | changes))
        assert words in load_catalogue([root]).broken["q8_0"], words
    config.write_text(json.dumps(said))
    shutil.copy(path, root / "alone.gguf")
    assert "T5 belongs into the folder" in load_catalogue([root]).broken["alone"]
    shutil.copy(path, path.with_name("other.gguf"))
    assert "which one is meant" in load_catalogue([root]).broken["q8_0"]
