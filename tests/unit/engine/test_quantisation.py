"""Weights in few bits: what is held, what is drawn with it, and how far that is from exact."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from diffusers import FluxPipeline, StableDiffusion3Pipeline
from diffusers.loaders.single_file_utils import (
    convert_flux_transformer_checkpoint_to_diffusers,
    convert_sd3_transformer_checkpoint_to_diffusers,
)
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.quantizers.gguf.utils import GGUFParameter, dequantize_gguf_tensor
from gguf import GGMLQuantizationType
from gguf.quants import IQ4_NL
from safetensors.torch import save_file
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from rockiln.domain.model import ModelProfile
from rockiln.domain.quantisation import FLOAT8, QUANTISED_TYPES, TENSOR_TYPES
from rockiln.domain.request import LoraUse
from rockiln.engine.families import FAMILIES
from rockiln.engine.picture_file import read_parameters_text, read_record
from rockiln.engine.quantisation import QuantisedLinear, round_to_q8
from rockiln.registry import load_catalogue
from rockiln.registry.loras import find_loras
from rockiln.registry.transformer_names import diffusers_shapes, transformer_tensors
from support.engine_harness import EngineHarness, largest_difference
from support.k_quants import quantise_k
from support.parameters import parameters
from support.reference import Reference
from support.tiny_flow import make_tiny_flux, make_tiny_sd3
from support.transformer_file import quantise, write_gguf, write_safetensors

pytestmark = pytest.mark.slow

ASKED = parameters(scheduler="flow_euler", num_inference_steps=3, width=64, height=64)
FLOW: dict[str, tuple[Callable[..., Path], Any, str]] = {
    "flux": (make_tiny_flux, FluxPipeline, "text_encoder_2"),
    "sd3": (make_tiny_sd3, StableDiffusion3Pipeline, "text_encoder_3"),
}
# On a CPU a vector's product with a matrix is summed by where the matrix begins, such as that of
# CLIP's numbers for a whole text: a piece begins elsewhere than in the mapped file.
ALIGNMENT_BOUND = 1
# Of 255 against float32, mean and largest, of these small random models.
BOUNDS = {"q8_0": (0.2, 4), "q4_0": (3.0, 40), "f8_e4m3": (2.0, 20)}


def round_parts(folder: Path, *names: str) -> None:
    said = json.loads((folder / "rockiln.json").read_text())
    said["quantisation"] = dict.fromkeys(names, "q8_0")
    (folder / "rockiln.json").write_text(json.dumps(said))


@pytest.fixture(scope="module", params=FLOW)
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``exact``; ``rounded``, its transformer and T5 at load; a file of it in each kind."""
    root: Path = tmp_path_factory.mktemp(f"models-{request.param}")
    make, _, t5 = FLOW[request.param]
    make(root / "exact", inner=96)
    shutil.copytree(root / "exact", root / "rounded")
    round_parts(root / "rounded", "transformer", t5)
    for kind in ("q8_0", "q4_0"):
        write_gguf(root / "exact", root / f"{kind}.gguf", kind.upper())
    write_safetensors(root / "exact", root / "f8_e4m3.safetensors", torch.float8_e4m3fn)
    return root


@pytest.fixture
def profiles(models: Path) -> dict[str, ModelProfile]:
    catalogue = load_catalogue([models])
    assert catalogue.broken == {}
    return catalogue.models


def reference_of(models: Path, kind: str | None) -> Reference:
    """diffusers' pipeline, its transformer's matrices as diffusers brings that kind back."""
    profile = load_catalogue([models]).models["exact"]
    reference = Reference(FLOW[profile.family][1], models / "exact")
    for part in (reference.pipeline.vae, reference.pipeline.transformer):
        part.to(memory_format=torch.channels_last)
    if kind == "f8_e4m3":
        for tensor in [
            *reference.pipeline.transformer.parameters(),
            *reference.pipeline.transformer.buffers(),
        ]:
            tensor.data = tensor.data.to(torch.float8_e4m3fn).float()
        return reference
    layers = [each for each in reference.pipeline.transformer.modules() if type(each) is nn.Linear]
    for layer in layers if kind else ():
        number = GGMLQuantizationType[str(kind).upper()]
        if layer.in_features % gguf.GGML_QUANT_SIZES[number][0] == 0:
            held = torch.from_numpy(quantise(layer.weight.detach().numpy(), number))
            back = dequantize_gguf_tensor(GGUFParameter(held, quant_type=number))
            layer.weight.data = back.float()
    return reference


@pytest.mark.parametrize("kind", BOUNDS)
def test_a_picture_from_few_bits_is_that_of_diffusers_and_near_the_exact_one(
    harness: EngineHarness, models: Path, profiles: dict[str, ModelProfile], kind: str
) -> None:
    (expected,) = reference_of(models, kind).draw(ASKED)
    (exact,) = harness.run(ASKED, profiles["exact"])
    (made,) = harness.run(ASKED, profiles[kind])
    assert largest_difference(harness.pixels(made), expected) == 0
    apart = np.abs(harness.pixels(made).astype(int) - harness.pixels(exact))
    mean, largest = BOUNDS[kind]
    assert 0 < apart.mean() <= mean
    assert apart.max() <= largest


def test_rounded_at_load_is_near_the_exact_picture_and_says_so(
    harness: EngineHarness, profiles: dict[str, ModelProfile]
) -> None:
    (exact,) = harness.run(ASKED, profiles["exact"])
    (made,) = harness.run(ASKED, profiles["rounded"])
    apart = np.abs(harness.pixels(made).astype(int) - harness.pixels(exact))
    assert 0 < apart.mean() <= BOUNDS["q8_0"][0]
    assert apart.max() <= BOUNDS["q8_0"][1]
    t5 = FLOW[profiles["exact"].family][2]
    record = read_record(harness.data(made))
    assert record is not None
    said = {"kind": "q8_0", "exact": False, "weight_error": 0.0054}
    assert record["quantisation"] == {"transformer": said, t5: said}
    text = read_parameters_text(harness.data(made)) or ""
    assert "Quantisation: " in text
    assert "(lossy)" in text
    assert "quantisation" not in (read_record(harness.data(exact)) or {})
    assert made.warnings == exact.warnings


@pytest.mark.parametrize(
    ("name", "placement"),
    [
        ("rounded", "model_offload"),
        ("q4_0", "group_offload"),
        ("f8_e4m3", "group_offload"),
        ("rounded", "sequential_offload"),
    ],
)
def test_offloading_moves_the_same_bits(
    harness: EngineHarness, profiles: dict[str, ModelProfile], name: str, placement: str
) -> None:
    profile = profiles[name]
    (full,) = harness.run(ASKED, profile)
    chosen = harness.plan(ASKED, profile, placement=placement)
    (made,) = harness.run(ASKED, profile, chosen=chosen)
    in_pieces = profile.family == "sd3" and placement != "model_offload"
    bound = ALIGNMENT_BOUND if in_pieces else 0
    assert largest_difference(harness.pixels(made), harness.pixels(full)) <= bound


@pytest.mark.parametrize("name", ["exact", "rounded", *BOUNDS])
def test_planned_bytes_are_those_of_the_loaded_parts(
    harness: EngineHarness, profiles: dict[str, ModelProfile], name: str
) -> None:
    profile = profiles[name]
    chosen = harness.plan(ASKED, profile)
    modules = harness.shelf.take(profile, chosen).model.components.modules
    found = {
        part: sum(
            tensor.numel() * tensor.element_size()
            for tensor in [*module.parameters(), *module.buffers()]
            # Tables of places count for nothing in files, too.
            if tensor.is_floating_point() or tensor.dtype is torch.int8
        )
        for part, module in modules.items()
    }
    assert found == pytest.approx(profile.loaded_bytes(4), rel=1e-3)
    held = sum(each.held_bytes for each in profile.quantised.values())
    assert held == sum(
        layer.weight.numel()
        for module in modules.values()
        for layer in module.modules()
        if isinstance(layer, QuantisedLinear)
    )


@pytest.mark.parametrize("kind", ["q8_0", "f8_e4m3"])
def test_a_lora_on_rounded_layers_is_computed_beside_them(
    harness: EngineHarness,
    models: Path,
    profiles: dict[str, ModelProfile],
    tmp_path: Path,
    kind: str,
) -> None:
    """Near what the reference draws with the LoRA in its exact weights; gone when it is gone."""
    layer, (out, inner) = "transformer_blocks.0.attn.to_q", (32, 32)
    source = torch.Generator().manual_seed(3)
    down, up = torch.randn((2, inner), generator=source), torch.randn((out, 2), generator=source)
    (tmp_path / "loras").mkdir()
    tensors = {f"transformer.{layer}.lora_A.weight": down, f"transformer.{layer}.lora_B.weight": up}
    save_file(tensors, tmp_path / "loras" / "ink.safetensors")
    files = find_loras([tmp_path], [LoraUse("ink", 0.5)])
    asked = replace(ASKED, loras=(LoraUse("ink", 0.5),))
    (before,) = harness.run(ASKED, profiles[kind])
    (made,) = harness.run(asked, profiles[kind], lora_files=files)
    (after,) = harness.run(ASKED, profiles[kind])
    reference = reference_of(models, kind if kind == "f8_e4m3" else None)
    reference.pipeline.transformer.get_submodule(layer).weight.data += 0.5 * (up @ down)
    (expected,) = reference.draw(ASKED)
    assert largest_difference(harness.pixels(made), expected) <= BOUNDS["q8_0"][1]
    assert largest_difference(harness.pixels(made), harness.pixels(before)) > 2
    assert after.digest == before.digest


def test_half_precision_keeps_t5s_wide_layers_in_float32(profiles: dict[str, ModelProfile]) -> None:
    """They overflow in float16; what is rounded computes as what is not, and is near it."""
    t5 = FLOW[profiles["exact"].family][2]
    family, ids = FAMILIES[profiles["exact"].family], torch.arange(24).reshape(1, -1)
    found = []
    for quantisation in ({}, {t5: "q8_0"}):
        folder, cpu = Path(profiles["exact"].path), torch.device("cpu")
        module = family.load(folder, torch.float16, cpu, None, quantisation).modules[t5]
        wide = module.get_submodule("encoder.block.0.layer.1.DenseReluDense.wo")
        assert getattr(wide, "compute_dtype", wide.weight.dtype) is torch.float32
        found.append(module(ids)[0].float())
    exact, rounded = found
    assert 0 < (rounded - exact).square().mean().sqrt() < 0.02 * exact.std()


def weights_like(shape: tuple[int, int]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.03


def test_the_table_of_types_is_ggmls() -> None:
    for number, kind in TENSOR_TYPES.items():
        assert GGMLQuantizationType(number).name.lower() == kind.name
        assert gguf.GGML_QUANT_SIZES[GGMLQuantizationType(number)] == (kind.block, kind.block_bytes)


@pytest.mark.parametrize("number", QUANTISED_TYPES, ids=lambda each: QUANTISED_TYPES[each].name)
def test_a_type_comes_back_as_the_gguf_package_reads_it(number: int) -> None:
    """Within float16's rounding, for some of two numbers' difference. Errors are the table's."""
    kind, ggml = QUANTISED_TYPES[number], GGMLQuantizationType(number)
    weights = weights_like((64, 2048))
    held = torch.from_numpy(quantise(weights.numpy(), ggml))
    expected = torch.from_numpy(gguf.quants.dequantize(held.numpy(), ggml))
    with Allocations(held) as allocations:
        parameter = GGUFParameter(held.view(torch.int8), quant_type=ggml)
        back = dequantize_gguf_tensor(parameter).to(torch.float16)
    assert (back - expected).abs().max() <= 2e-3 * expected.abs().max()
    assert allocations.peak <= kind.workspace_bytes * weights.numel()
    error = (expected - weights).square().mean().sqrt() / weights.square().mean().sqrt()
    assert float(error) == pytest.approx(kind.weight_error, rel=0.03)


@pytest.mark.parametrize(
    ("name", "values", "step"),
    [("Q2_K", range(-1, 3), 15), ("Q3_K", range(-4, 4), 1), ("Q4_K", range(-6, 10), 63),
     ("Q5_K", range(-31, 1), 63), ("Q6_K", range(-32, 32), 1), ("IQ4_NL", IQ4_NL.kvalues, 1),
     ("IQ4_XS", IQ4_NL.kvalues, 1)],
)  # fmt: skip
def test_the_writer_of_k_and_iq4_kinds_keeps_what_they_can_hold(
    name: str, values: Sequence[int], step: int
) -> None:
    """By the gguf package's reading: each number at its place, whatever share of its block."""
    places = torch.randint(len(values), (4, 16, 2, 16), generator=torch.Generator())
    places[..., 0], places[..., 1] = 0, len(values) - 1
    given = (torch.tensor(values)[places].reshape(4, 512) * step).float().numpy()
    for exact in (given, np.zeros_like(given)):
        held = quantise_k(exact, GGMLQuantizationType[name])
        assert np.array_equal(gguf.quants.dequantize(held, GGMLQuantizationType[name]), exact)


def test_the_error_of_fp8_is_that_of_the_table() -> None:
    weights = weights_like((64, 2048))
    error = weights.to(torch.float8_e4m3fn).float() - weights
    found = error.square().mean().sqrt() / weights.square().mean().sqrt()
    assert float(found) == pytest.approx(FLOAT8.weight_error, rel=0.03)


def test_rounding_at_load_is_that_of_the_gguf_package() -> None:
    halves = torch.randint(-254, 255, (64, 1024)) / 2  # ties among them
    halves[:, 0] = 127
    weights = torch.cat([weights_like((640, 1024)), halves, torch.zeros(2, 1024)])
    expected = gguf.quants.quantize(weights.numpy(), GGMLQuantizationType.Q8_0)
    assert np.array_equal(round_to_q8(weights).view(torch.uint8).numpy(), expected)


@pytest.mark.parametrize(
    ("kind", "family", "convert", "config"),
    [
        (FluxTransformer2DModel, "flux", convert_flux_transformer_checkpoint_to_diffusers,
         {"num_layers": 2, "num_single_layers": 2, "guidance_embeds": True}),
        (FluxTransformer2DModel, "flux", convert_flux_transformer_checkpoint_to_diffusers,
         {"num_layers": 1, "num_single_layers": 1}),
        (SD3Transformer2DModel, "sd3", convert_sd3_transformer_checkpoint_to_diffusers,
         {"num_layers": 3}),
        (SD3Transformer2DModel, "sd3", convert_sd3_transformer_checkpoint_to_diffusers,
         {"num_layers": 4, "qk_norm": "rms_norm", "dual_attention_layers": (0, 1)}),
    ],
)  # fmt: skip
def test_names_and_order_are_those_of_diffusers_conversion(
    kind: Any, family: str, convert: Any, config: dict[str, Any]
) -> None:
    """At real width. Each row of a file says where it stood; columns are left out."""
    with torch.device("meta"):
        module = kind(**config)
    tensors = transformer_tensors(dict(module.config), family)
    assert diffusers_shapes(tensors) == {
        name: tuple(tensor.shape) for name, tensor in module.state_dict().items()
    }
    originals: dict[str, torch.Tensor] = {}
    ours: dict[str, torch.Tensor] = {}
    for place, named in enumerate(tensors):
        rows = torch.arange(named.shape[0]).reshape(-1, 1) + place * 1_000_000
        originals[named.original] = rows
        if named.swapped:
            rows = torch.cat(rows.chunk(2)[::-1])
        parts = torch.split(rows, [shape[0] for _, shape in named.parts])
        ours |= dict(zip((name for name, _ in named.parts), parts, strict=True))
    # SD3's conversion asks that tensor, which has but one part, how wide the text is.
    text = "context_embedder.weight"
    if family == "sd3":
        originals[text] = torch.zeros(module.inner_dim, 1)
    theirs = convert(dict(originals))
    for name, rows in ours.items():
        if name != text:
            assert torch.equal(theirs[name], rows), name


class Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most bytes of new tensors that lived at once."""

    def __init__(self, *known: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self._live: dict[int, tuple[Any, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in self._known:
                    weak = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                    self._live[storage.data_ptr()] = weak, storage.nbytes()
        self._live = {key: each for key, each in self._live.items() if not each[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._live.values()))
        return result
