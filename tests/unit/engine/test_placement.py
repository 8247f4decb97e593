"""Where weights are: lent to the device whole or in pieces, and at home again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rockiln.domain.errors import BrokenModelError
from rockiln.engine.families import FAMILIES
from rockiln.engine.families.interface import Components, Stage
from rockiln.engine.loans import Loan, Staging, span_bytes, weights_of
from rockiln.engine.loras import AppliedLora, LoraSet
from rockiln.engine.placement import Placement, enter_stage
from rockiln.engine.weights_on_demand import WeightsOnDemand

CPU = torch.device("cpu")


def test_weights_go_home_when_a_forward_fails() -> None:
    linear = nn.Linear(2, 2)
    home = linear.weight.data_ptr()
    staging = Staging(CPU)
    WeightsOnDemand(linear, CPU, staging, "layer")
    with pytest.raises(RuntimeError):
        linear(torch.zeros(3))
    assert linear.weight.data_ptr() == home
    assert staging.taken == 0


def test_weights_go_home_when_they_find_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    linear, staging = nn.Linear(2, 2), Staging(CPU)
    homes = [weight.data_ptr() for weight in linear.parameters()]
    put = staging.put

    def full(tensor: torch.Tensor) -> torch.Tensor:
        if staging.taken:
            raise torch.OutOfMemoryError("no room")
        return put(tensor)

    monkeypatch.setattr(staging, "put", full)
    WeightsOnDemand(linear, CPU, staging, "layer")
    with pytest.raises(torch.OutOfMemoryError):
        linear(torch.zeros(2))
    assert [weight.data_ptr() for weight in linear.parameters()] == homes
    assert staging.taken == 0


def test_a_part_with_two_names_comes_once() -> None:
    linear = nn.Linear(2, 2)
    home = linear.weight.data_ptr()
    outer = nn.Sequential(nn.Sequential(linear), linear)
    assert WeightsOnDemand(outer, CPU, Staging(CPU), "layer").groups == {linear: False}
    outer(torch.zeros(2))
    assert linear.weight.data_ptr() == home


class Nested(nn.Module):
    """Has weights of its own, and a part within it whose weights come while its own are there."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((3, 5), 2.0))
        self.within = nn.Linear(5, 3).to(torch.bfloat16)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        narrow: torch.Tensor = self.within(inputs.to(torch.bfloat16)).float()
        return narrow @ self.scale


def test_pieces_within_pieces_lie_in_one_buffer_one_behind_the_other() -> None:
    module, inputs = Nested(), torch.randn(2, 5)
    with torch.no_grad():
        plain, staging = module(inputs), Staging(CPU)
        on_demand = WeightsOnDemand(module, CPU, staging, "layer")
        assert on_demand.most_bytes == 3 * 512  # a matrix, and within it another with its bias
        assert torch.equal(module(inputs), plain)
    assert staging.taken == 0
    assert staging.release()
    assert not staging.release()


def test_a_piece_keeps_the_order_of_its_dimensions() -> None:
    kernel = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
    staging = Staging(CPU)
    staging.hold(span_bytes(kernel))
    lying = staging.put(kernel)
    assert torch.equal(lying, kernel)
    assert lying.stride() == kernel.stride()
    assert staging.taken == 1536  # 1200 bytes


def test_a_table_of_tokens_is_read_at_home() -> None:
    table = nn.Embedding(1000, 4)
    module, ids = nn.Sequential(table, nn.Linear(4, 4)), torch.tensor([[1, 999]])
    plain = module(ids)
    on_demand = WeightsOnDemand(module, CPU, Staging(CPU), "layer")
    assert table not in on_demand.groups
    assert on_demand.most_bytes == 2 * 512
    assert torch.equal(module(ids), plain)


def test_nothing_is_copied_back_of_what_was_lent() -> None:
    linear = nn.Linear(2, 2)
    home = linear.weight.data_ptr()
    loan = Loan()
    loan.begin(weights_of(linear), torch.clone)
    assert linear.weight.data_ptr() != home
    linear.weight.data.zero_()
    loan.end()
    assert linear.weight.data_ptr() == home
    assert linear.weight.abs().sum() > 0


@dataclass
class Recorder:
    """Stands for a module and its one weight; notes where that is sent."""

    name: str
    moves: list[str]
    device: torch.device = CPU

    def parameters(self, *, recurse: bool = True) -> list[Recorder]:
        return [self] if recurse else []

    def buffers(self, **_: object) -> list[Recorder]:
        return []

    @property
    def data(self) -> Recorder:
        return replace(self, moves=[])

    @data.setter
    def data(self, copy: Recorder) -> None:
        self.to(copy.device)

    def to(self, device: torch.device) -> Recorder:
        if device != self.device:
            self.moves.append(f"{self.name}>{device}")
        self.device = device
        return self


def recorded(moves: list[str], *args: Any) -> Placement:
    modules = {name: Recorder(name, moves) for name in ("text_encoder", "unet", "vae")}
    components = Components(modules, {}, {}, torch.float16, torch.device("cuda", 0))
    return Placement(FAMILIES["sd1"].stages, components, *args)


STAGES: tuple[Stage, ...] = ("encode_prompt", "denoise", "denoise", "decode")


def enter(placement: Placement, said: list[str], *stages: Stage, alone: bool = False) -> None:
    for stage in stages:
        enter_stage([placement], stage, lambda: said.append("release"), alone=alone)


def test_offload_sends_a_stage_out_and_gives_its_memory_back_before_the_next_comes_in() -> None:
    """Z-Image on an H200: 13.6 GiB were taken for 11.5, in segments of the text encoder before."""
    said: list[str] = []
    placement = recorded(said, "model_offload")
    placement.settle()
    enter(placement, said, *STAGES)
    assert said == [
        "release",
        "text_encoder>cuda:0",
        "text_encoder>cpu",
        "release",
        "unet>cuda:0",
        "unet>cpu",
        "release",
        "vae>cuda:0",
    ]


def test_resident_moves_everything_once() -> None:
    said: list[str] = []
    placement = recorded(said)
    placement.settle()
    enter(placement, said, *STAGES)
    assert said == ["text_encoder>cuda:0", "unet>cuda:0", "vae>cuda:0"]


def test_a_resident_denoiser_makes_room_for_decoding_and_comes_back() -> None:
    said: list[str] = []
    placement = recorded(said)
    placement.settle()
    said.clear()
    enter(placement, said, "decode", alone=True)
    assert said == ["text_encoder>cpu", "unet>cpu", "release"]
    said.clear()
    enter(placement, said, "encode_prompt")
    assert said == ["release", "text_encoder>cuda:0", "unet>cuda:0"]


def test_a_decoder_on_the_cpu_never_comes_to_the_device() -> None:
    said: list[str] = []
    placement = recorded(said, "resident", torch.device("cpu"))
    placement.settle()
    enter(placement, said, "decode", alone=True)
    assert not [move for move in said if move.startswith("vae")]
    assert placement.decode_device == torch.device("cpu")


@pytest.mark.parametrize("name", ["resident", "model_offload"])
def test_weights_are_at_home_before_they_are_changed(name: Any) -> None:
    """What a LoRA wrote into a copy on the device would be lost when that leaves."""
    said: list[str] = []
    placement = recorded(said, name)
    placement.settle()
    enter(placement, said, "decode", "encode_prompt", alone=True)
    enter(placement, said, "denoise")
    said.clear()
    loras = LoraSet(Components({}, {}, {}, torch.float16, CPU), placement)
    loras.align(())
    assert said == []  # nothing is to be changed
    with pytest.raises(BrokenModelError):
        loras.align((AppliedLora(Path("missing.safetensors"), 1.0),))
    assert {move for move in said if move.startswith("unet")} == {"unet>cpu"}
    assert not placement.recall()
    said.clear()
    enter(placement, said, "denoise")
    assert "unet>cuda:0" in said
