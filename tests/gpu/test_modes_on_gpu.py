"""The memory modes on a real GPU: ``pytest tests/gpu`` where there is one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rockiln.domain.fault import FaultCode
from rockiln.domain.model import ModelProfile
from rockiln.domain.request import LoraUse
from rockiln.engine.engine import Engine, UnfitDeviceError
from rockiln.engine.model_shelf import ModelShelf
from rockiln.platforms.interface import DeviceUnavailableError
from rockiln.platforms.selection import select
from support.encoded_texts import MAKERS, encoded, load, settle
from support.engine_harness import EngineHarness, largest_difference, read_profile
from support.parameters import parameters
from support.tiny_sd1 import make_tiny_sd1

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),  # (there is none to try)
]

VISTA = Path(__file__).parents[2] / "service" / "models" / "vista"
WANTED = parameters(width=256, height=256, num_inference_steps=4, num_images=2)
GIB = 1 << 30


class GpuHarness(EngineHarness):
    """The harness with the GPU for a device."""

    def __init__(self, work_dir: Path) -> None:
        super().__init__(work_dir)
        torch.use_deterministic_algorithms(mode=False)
        self.device = select("rocm" if torch.version.hip else "cuda", "gpu", threads=2)
        self.shelf = ModelShelf(self.device, work_dir / "cache")
        self.engine = Engine(
            self.device, self.shelf, self.artefacts, self.surroundings, self.events.append
        )


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> GpuHarness:
    return GpuHarness(tmp_path_factory.mktemp("engine"))


@pytest.fixture(params=["tiny", "vista"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> ModelProfile:
    return read_profile(VISTA if request.param == "vista" else make_tiny_sd1(tmp_path / "tiny"))


def pictures(harness: GpuHarness, model: ModelProfile, **changes: Any) -> list[Any]:
    made = harness.run(WANTED, model, chosen=harness.plan(WANTED, model, **changes))
    assert len(made) == WANTED.num_images, harness.events[-1]
    return [harness.pixels(picture) for picture in made]


@pytest.mark.parametrize(
    "changes",
    [
        {"placement": "model_offload"},
        {"placement": "group_offload"},
        {"placement": "sequential_offload"},
        {"unload_before_decode": True},
        {"sliced_attention": True},
    ],
    ids=lambda changes: "-".join(f"{name}={value}" for name, value in changes.items()),
)
def test_a_mode_that_moves_weights_gives_the_same_bits(
    harness: GpuHarness, model: ModelProfile, changes: dict[str, Any]
) -> None:
    full = pictures(harness, model)
    for one, other in zip(full, pictures(harness, model, **changes), strict=True):
        assert largest_difference(one, other) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"placement": "model_offload"},
        {"placement": "group_offload"},
        {"unload_before_decode": True},
    ],
)
def test_a_lora_comes_and_goes_where_weights_are_lent(
    harness: GpuHarness, changes: dict[str, Any]
) -> None:
    """Nothing is copied back of what was lent: it would be lost, or stay, if it changed there."""
    model = read_profile(VISTA)
    wanted = replace(WANTED, loras=(LoraUse("vista-print", 1.0),))
    file = VISTA.parent / "loras" / "vista-print.safetensors"

    def printed(**changes: Any) -> list[Any]:
        chosen = harness.plan(wanted, model, **changes)
        made = harness.run(wanted, model, chosen=chosen, lora_files={"vista-print": str(file)})
        return [harness.pixels(picture) for picture in made]

    plain, with_lora = pictures(harness, model), printed()
    assert largest_difference(plain[0], with_lora[0]) > 0
    for asked in (with_lora, plain, with_lora):
        drawn = pictures(harness, model, **changes) if asked is plain else printed(**changes)
        for one, other in zip(asked, drawn, strict=True):
            assert largest_difference(one, other) == 0


@pytest.mark.parametrize("placement", ["text_encoder_offload", "sequential_offload"])
@pytest.mark.parametrize("family", MAKERS)
def test_a_text_encoder_in_pieces_gives_the_same_bits(
    harness: GpuHarness, tmp_path: Path, family: str, placement: Any
) -> None:
    components = load(family, tmp_path, harness.device.torch_device, torch.float16)
    settle(family, components, "resident")
    whole = encoded(family, components)
    settle(family, components, placement)
    for one, other in zip(whole, encoded(family, components), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("changes", "bound"),
    [
        # float16 against itself in another batch, against float32, and against bfloat16's 8 bits.
        ({"split_samples": True, "placement": "sequential_offload"}, 1.0),
        ({"decode_device": "cpu", "decode_dtype": "float32"}, 1.0),
        ({"decode_dtype": "float32"}, 1.0),
        ({"decode_dtype": "bfloat16"}, 3.0),
    ],
)
def test_a_mode_that_sums_otherwise_is_near(
    harness: GpuHarness, model: ModelProfile, changes: dict[str, Any], bound: float
) -> None:
    full = pictures(harness, model)
    for one, other in zip(full, pictures(harness, model, **changes), strict=True):
        assert np.abs(one.astype(int) - other.astype(int)).mean() <= bound


def test_a_stage_tells_its_peak(harness: GpuHarness, tmp_path: Path) -> None:
    (made, _) = harness.run(WANTED, read_profile(make_tiny_sd1(tmp_path / "tiny")))
    assert set(made.memory) >= {"encode_prompt", "denoise", "decode"}
    assert all(size > 0 for size in made.memory.values())


def test_a_card_that_is_too_small_is_out_of_memory_in_decode(
    harness: GpuHarness, tmp_path: Path
) -> None:
    model = read_profile(make_tiny_sd1(tmp_path / "tiny"))
    wanted = replace(WANTED, width=1024, height=1024, num_images=1, num_inference_steps=1)
    chosen = harness.plan(wanted, model, vae_tile_px=None)
    harness.submit(wanted, model, chosen=chosen)
    while not harness.engine._decoding:
        harness.engine.advance()
    total = harness.device.facts.total_bytes
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + (2 << 20)) / total)
    try:
        with pytest.raises(UnfitDeviceError):
            harness.engine.advance()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    failure = harness.failure()
    assert (failure.code, failure.stage) == (FaultCode.GPU_OOM, "decode")


def test_a_reserved_card_is_capped_and_says_so(harness: GpuHarness) -> None:
    total = harness.device.facts.total_bytes
    try:
        card = harness.device.reserve(total - 4 * GIB)
        assert card.facts.usable_bytes == 4 * GIB
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(5 * GIB, dtype=torch.uint8, device="cuda")
        with pytest.raises(DeviceUnavailableError, match="are too few"):
            harness.device.reserve(total)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
