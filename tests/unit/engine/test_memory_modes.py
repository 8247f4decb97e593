"""Every memory mode makes the picture of the full mode, bit for bit or within a stated bound.

On a CPU the device is the host, so offloaded weights are copied from host to host: the hooks, the
order of stages and the arithmetic are the real ones, the bus is not. tests/gpu has that.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rockiln.domain.ladder import DecodeRung, DenoiseRung, Rungs
from rockiln.domain.model import ModelProfile
from rockiln.domain.request import LoraUse
from rockiln.engine.attention import SlicedAttention
from rockiln.engine.families import FAMILIES
from rockiln.engine.loans import Staging, weights_of
from rockiln.engine.weights_on_demand import WeightsOnDemand
from support.encoded_texts import MAKERS, encoded, load, settle
from support.engine_harness import EngineHarness, largest_difference, read_profile
from support.parameters import parameters
from support.tiny_qwen import make_tiny_flux2, make_tiny_qwen_image, make_tiny_z_image

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")

VISTA = Path(__file__).parents[3] / "service" / "models" / "vista"
WANTED = parameters(width=128, height=128, num_inference_steps=3, num_images=2)
# A row that runs alone sums in another order than one in a batch.
SPLIT_BOUND = 1
SLICES_BOUND = 1
# Qwen-Image has one sample per forward, and on a CPU a vector's product with a matrix is summed by
# where the matrix begins: a copy begins elsewhere than in the mapped file.
ALIGNMENT_BOUND = 1
# Of 255, on the mean over a picture: tiles see their own part of the picture alone.
TILE_MEAN_BOUND = {64: 17.0, 96: 10.0}


@pytest.fixture(scope="module")
def vista(tmp_path_factory: pytest.TempPathFactory) -> ModelProfile:
    folder = tmp_path_factory.mktemp("models") / "vista"
    shutil.copytree(VISTA, folder)
    return read_profile(folder)


@pytest.fixture(scope="module")
def with_language_model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelProfile]:
    root = tmp_path_factory.mktemp("language")
    makers = {"flux2": make_tiny_flux2, "z_image": make_tiny_z_image, "qwen": make_tiny_qwen_image}
    return {name: read_profile(make(root / name)) for name, make in makers.items()}


@pytest.fixture(params=["tiny", "vista", "flux2", "z_image", "qwen"])
def any_model(
    request: pytest.FixtureRequest, with_language_model: dict[str, ModelProfile]
) -> ModelProfile:
    if request.param in with_language_model:
        return with_language_model[request.param]
    profile: ModelProfile = request.getfixturevalue(request.param)
    return profile


@pytest.fixture(params=["tiny", "vista"])
def model(request: pytest.FixtureRequest) -> ModelProfile:
    profile: ModelProfile = request.getfixturevalue(request.param)
    return profile


def pictures(harness: EngineHarness, model: ModelProfile, **changes: Any) -> list[Any]:
    wanted = replace(WANTED, model=model.id, scheduler=model.defaults.scheduler)
    chosen = harness.plan(wanted, model, **changes)
    made = harness.run(wanted, model, chosen=chosen)
    assert len(made) == WANTED.num_images, harness.events[-1]
    return [harness.pixels(picture) for picture in made]


@pytest.mark.parametrize(
    "changes",
    [
        {"placement": "model_offload"},
        {"placement": "group_offload"},
        {"placement": "sequential_offload"},
        {"unload_before_decode": True},
        {"decode_device": "cpu"},
    ],
    ids=lambda changes: "-".join(f"{name}={value}" for name, value in changes.items()),
)
def test_a_mode_that_moves_weights_gives_the_same_bits(
    harness: EngineHarness, any_model: ModelProfile, changes: dict[str, Any]
) -> None:
    full = pictures(harness, any_model)
    moved = changes.get("placement") in {"group_offload", "sequential_offload"}
    bound = ALIGNMENT_BOUND if moved and any_model.id == "qwen" else 0
    for one, other in zip(full, pictures(harness, any_model, **changes), strict=True):
        assert largest_difference(one, other) <= bound


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


@pytest.mark.parametrize("placement", ["text_encoder_offload", "sequential_offload"])
@pytest.mark.parametrize("family", MAKERS)
def test_a_text_encoder_in_pieces_gives_the_same_bits(
    families: Path, family: str, placement: Any
) -> None:
    components = load(family, families, torch.device("cpu"))
    whole = encoded(family, components)
    settle(family, components, placement)
    encoders = [components.modules[name] for name in FAMILIES[family].stages["encode_prompt"]]
    watches = [_Watch(module) for module in encoders]
    for one, other in zip(whole, encoded(family, components), strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    for watch, module in zip(watches, encoders, strict=True):
        assert 0 < watch.most_bytes < sum(each.nbytes for each in module.parameters())
        assert watch.away() == {}


@pytest.mark.parametrize("placement", ["text_encoder_offload", "sequential_offload"])
def test_loras_and_textual_inversions_work_on_pieces(
    harness: EngineHarness, tiny: ModelProfile, tmp_path: Path, placement: str
) -> None:
    layer, generator = "encoder.layers.0.self_attn.q_proj", torch.Generator().manual_seed(0)
    save_file(
        {
            f"text_encoder.text_model.{layer}.lora_A.weight": torch.randn(
                (2, 32), generator=generator
            ),
            f"text_encoder.text_model.{layer}.lora_B.weight": torch.randn(
                (32, 2), generator=generator
            ),
        },
        tmp_path / "style.safetensors",
    )
    save_file(
        {"emb_params": torch.randn((2, 32), generator=generator)}, tmp_path / "ink.safetensors"
    )
    plain = parameters(prompt="ink boat", num_inference_steps=2)
    asked = replace(plain, embeddings=("ink",), loras=(LoraUse("style", 1.0),))
    files = {
        "lora_files": {"style": str(tmp_path / "style.safetensors")},
        "embedding_files": {"ink": str(tmp_path / "ink.safetensors")},
    }

    def drawn(wanted: Any, **options: Any) -> Any:
        chosen = harness.plan(wanted, tiny, **options.pop("changes", {}))
        (picture,) = harness.run(wanted, tiny, chosen=chosen, **options)
        return harness.pixels(picture)

    whole, changed = drawn(asked, **files), {"placement": placement}
    assert largest_difference(whole, drawn(plain)) > 0
    assert largest_difference(whole, drawn(asked, changes=changed, **files)) == 0
    assert largest_difference(drawn(plain), drawn(plain, changes=changed)) == 0


def test_attention_in_many_slices_is_within_one_step(
    harness: EngineHarness, model: ModelProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Small pictures fit one slice of the usual size.
    monkeypatch.setattr(SlicedAttention.__init__, "__defaults__", (1 << 16,))
    full = pictures(harness, model)
    for one, other in zip(full, pictures(harness, model, sliced_attention=True), strict=True):
        assert largest_difference(one, other) <= SLICES_BOUND


def test_one_sample_per_forward_is_within_one_step(
    harness: EngineHarness, any_model: ModelProfile
) -> None:
    full = pictures(harness, any_model)
    split = pictures(harness, any_model, split_samples=True, placement="sequential_offload")
    for one, other in zip(full, split, strict=True):
        assert largest_difference(one, other) <= SPLIT_BOUND


@pytest.mark.parametrize("tile_px", [64, 96])
def test_tiles_are_near_the_whole_picture(
    harness: EngineHarness, any_model: ModelProfile, tile_px: int
) -> None:
    full = pictures(harness, any_model)
    for one, other in zip(full, pictures(harness, any_model, vae_tile_px=tile_px), strict=True):
        assert 0 < np.abs(one.astype(int) - other.astype(int)).mean() < TILE_MEAN_BOUND[tile_px]


def test_a_decoder_in_bfloat16_is_near_the_full_one(
    harness: EngineHarness, vista: ModelProfile
) -> None:
    full = pictures(harness, vista)
    for one, other in zip(full, pictures(harness, vista, decode_dtype="bfloat16"), strict=True):
        # 8 bits of mantissa through some thirty layers.
        assert 0 < np.abs(one.astype(int) - other.astype(int)).mean() < 3


def test_the_picture_says_its_rungs(harness: EngineHarness, tiny: ModelProfile) -> None:
    rungs = Rungs(DenoiseRung.SPLIT_BATCH, DecodeRung.SMALL_TILES)
    (picture, _) = harness.run(WANTED, tiny, chosen=harness.plan(WANTED, tiny, rungs=rungs))
    plan = picture.details["plan"]
    assert isinstance(plan, dict)
    assert plan["rungs"] == {"denoise": "split_batch", "decode": "small_tiles"}


@pytest.mark.parametrize("keys", [5, 64])
@pytest.mark.parametrize("slice_bytes", [1, 4000, 1 << 30])
def test_sliced_attention_is_attention(keys: int, slice_bytes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn((2, 4, count, 40), generator=generator) for count in (64, keys, keys)
    )
    whole = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    sliced = SlicedAttention(slice_bytes)._attend(query, key, value)
    torch.testing.assert_close(sliced, whole, rtol=0, atol=2e-6)


class _Watch:
    """The most weights that lay elsewhere than at home at once."""

    def __init__(self, module: nn.Module) -> None:
        self._home = {name: tensor.data_ptr() for name, tensor in module.named_parameters()}
        self._module = module
        self.most_bytes = 0
        for part in module.modules():
            part.register_forward_pre_hook(self._look)

    def away(self) -> dict[str, int]:
        return {
            name: tensor.numel() * tensor.element_size()
            for name, tensor in self._module.named_parameters()
            if tensor.data_ptr() != self._home[name]
        }

    def _look(self, *_: Any) -> None:
        self.most_bytes = max(self.most_bytes, sum(self.away().values()))


@pytest.mark.parametrize("granularity", ["block", "layer"])
def test_weights_come_piece_by_piece_and_go_home(tiny: ModelProfile, granularity: Any) -> None:
    components = FAMILIES["sd1"].load(Path(tiny.path), torch.float32, torch.device("cpu"))
    unet = components.modules["unet"]
    staging = Staging(CPU)
    on_demand = WeightsOnDemand(unet, CPU, staging, granularity)
    watch = _Watch(unet)
    with torch.no_grad():
        unet(torch.zeros((1, 4, 8, 8)), 1, encoder_hidden_states=torch.zeros((1, 77, 32)))
    sizes = [
        sum(tensor.nbytes for tensor in weights_of(group, whole=whole))
        for group, whole in on_demand.groups.items()
    ]
    every_byte = sum(tensor.numel() * tensor.element_size() for tensor in unet.parameters())
    assert sum(sizes) == every_byte
    assert 0 < watch.most_bytes <= max(sizes) < every_byte
    assert max(sizes) <= on_demand.most_bytes < 2 * max(sizes)
    assert watch.away() == {}
    assert staging.taken == 0
    kinds = {type(group).__name__ for group in on_demand.groups}
    assert ("ResnetBlock2D" in kinds) is (granularity == "block")
