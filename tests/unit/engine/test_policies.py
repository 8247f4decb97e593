"""Every policy does what it says, and its removal leaves the model as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

from rockiln.domain.model import ModelProfile
from rockiln.domain.plan import Plan
from rockiln.engine.families import FAMILIES
from rockiln.engine.loaded_model import LoadedModel
from rockiln.engine.placement import Placement
from rockiln.engine.policies import (
    ChannelsLast,
    Policy,
    PolicySet,
    SdpaAttention,
    SliceAttention,
    VaeTiling,
)

PLAN = Plan("cpu", "float32", "resident", channels_last=True, vae_tile_px=None)
GPU_PLAN = replace(PLAN, device="gpu", dtype="float16")


@pytest.fixture
def model(tiny: ModelProfile) -> LoadedModel:
    family = FAMILIES["sd1"]
    components = family.load(Path(tiny.path), torch.float32, torch.device("cpu"))
    placement = Placement(family.stages, components)
    return LoadedModel(components, placement, tiny, "0" * 64, family)


def state_of(model: LoadedModel) -> dict[str, Any]:
    """All that a policy may change."""
    unet, vae = model.components.modules["unet"], model.components.modules["vae"]
    return {
        "processors": {
            name: type(processor)
            for module in (unet, vae)
            for name, processor in module.attn_processors.items()
        },
        "strides": {
            f"{part}.{name}": weights.stride()
            for part, module in model.components.modules.items()
            for name, weights in module.named_parameters()
        },
        "tiling": (vae.use_tiling, vae.tile_sample_min_size, vae.tile_latent_min_size),
        "undo": dict(model.undo),
    }


@pytest.mark.parametrize(
    "policy", [SdpaAttention(), SliceAttention(), ChannelsLast(), VaeTiling(64)], ids=str
)
def test_removal_restores_the_state(model: LoadedModel, policy: Policy) -> None:
    model.components.modules["unet"].set_attn_processor(AttnProcessor())
    before = state_of(model)
    weights = {
        name: tensor.clone() for name, tensor in model.components.modules["unet"].named_parameters()
    }
    policy.apply(model)
    assert state_of(model) != before
    policy.remove(model)
    assert state_of(model) == before
    for name, tensor in model.components.modules["unet"].named_parameters():
        assert torch.equal(tensor, weights[name])


def test_sdpa_attention_reaches_every_attention(model: LoadedModel) -> None:
    model.components.modules["unet"].set_attn_processor(AttnProcessor())
    SdpaAttention().apply(model)
    assert set(state_of(model)["processors"].values()) == {AttnProcessor2_0}


def test_channels_last_lays_out_every_convolution(model: LoadedModel) -> None:
    ChannelsLast().apply(model)
    for name in ("unet", "vae"):
        for parameter in model.components.modules[name].parameters():
            if parameter.dim() == 4:
                assert parameter.is_contiguous(memory_format=torch.channels_last)


def test_vae_tiling_sets_the_tile_in_pixels_and_latents(model: LoadedModel) -> None:
    VaeTiling(512).apply(model)
    assert state_of(model)["tiling"] == (True, 512, 64)


def test_tiled_decode_is_near_the_whole_one(model: LoadedModel) -> None:
    latents = torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = model.family.decode(model.components, latents)
        VaeTiling(96).apply(model)
        tiled = model.family.decode(model.components, latents)
    assert tiled.shape == whole.shape
    assert not torch.equal(tiled, whole)
    assert (tiled - whole).abs().mean() < 0.2


@pytest.mark.parametrize(
    ("plan", "names"),
    [
        (PLAN, ["channels_last", "sdpa_attention"]),
        (replace(PLAN, channels_last=False), ["sdpa_attention"]),
        (replace(PLAN, vae_tile_px=64), ["channels_last", "sdpa_attention", "vae_tiling"]),
        (GPU_PLAN, ["channels_last", "sdpa_attention"]),
        (replace(PLAN, sliced_attention=True), ["channels_last", "sliced_attention"]),
    ],
)
def test_policies_follow_the_plan(model: LoadedModel, plan: Plan, names: list[str]) -> None:
    policies = PolicySet(model)
    policies.align(plan)
    assert policies.names == names


def test_policies_change_with_the_plan_and_come_back(model: LoadedModel) -> None:
    policies = PolicySet(model)
    policies.align(PLAN)
    before = state_of(model)
    policies.align(replace(PLAN, vae_tile_px=64))
    policies.align(replace(PLAN, vae_tile_px=96))
    assert state_of(model)["tiling"] == (True, 96, 12)
    policies.align(PLAN)
    assert state_of(model) == before
