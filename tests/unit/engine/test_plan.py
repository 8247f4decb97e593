"""The plan on simulated cards. Pure: no device is asked."""

from __future__ import annotations

import pytest

from rockiln.domain.model import DeviceFacts, ModelDefaults, ModelProfile
from rockiln.domain.plan import Plan, plan
from support.parameters import parameters

GIB = 1 << 30
HOST = DeviceFacts(kind="cpu", name="host", total_bytes=16 * GIB, threads=2)


def card(gib: float) -> DeviceFacts:
    return DeviceFacts(kind="gpu", name="simulated", total_bytes=int(gib * GIB), threads=2)


def model_of(billions: float, *, bytes_on_disk: int = 4, counted: bool = True) -> ModelProfile:
    """A model of so many parameters."""
    count = int(billions * 1e9)
    return ModelProfile(
        id="simulated",
        title="",
        family="sd1",
        licence="",
        path="/nowhere",
        defaults=ModelDefaults(512, 512, 25, 7.5, "dpmpp_2m"),
        min_side_px=64,
        max_side_px=2048,
        component_bytes={"unet": count * bytes_on_disk},
        component_parameters={"unet": count} if counted else {},
    )


SD15_BILLIONS = 1.07


@pytest.mark.parametrize(
    ("gib", "placement"),
    [(2, "model_offload"), (3, "model_offload"), (4, "resident"), (12, "resident")],
)
def test_sd15_on_cards(gib: float, placement: str) -> None:
    chosen = plan(parameters(), model_of(SD15_BILLIONS), card(gib))
    assert (chosen.device, chosen.dtype, chosen.placement) == ("gpu", "float16", placement)


@pytest.mark.parametrize(
    ("gib", "placement"),
    [
        (8, "model_offload"),
        (12, "model_offload"),
        (16, "model_offload"),
        (20, "model_offload"),
        (24, "resident"),
    ],
)
def test_seven_billion_parameters_on_cards(gib: float, placement: str) -> None:
    assert plan(parameters(), model_of(7), card(gib)).placement == placement


def test_weights_count_as_loaded_and_not_as_stored() -> None:
    stored_small = plan(parameters(), model_of(7, bytes_on_disk=2), card(24))
    stored_large = plan(parameters(), model_of(7, bytes_on_disk=4), card(24))
    assert stored_small == stored_large
    unknown = plan(parameters(), model_of(7, bytes_on_disk=4, counted=False), card(24))
    assert unknown.placement == "model_offload"


def test_cpu_is_exact_and_never_offloads() -> None:
    chosen = plan(parameters(), model_of(70), HOST)
    assert chosen == Plan("cpu", "float32", "resident", channels_last=True, vae_tile_px=None)
    assert chosen.max_batch_rows == 1


@pytest.mark.parametrize(
    ("width", "height", "tile_px"),
    [(64, 64, None), (768, 768, None), (776, 768, 512), (512, 1536, 512), (2048, 2048, 512)],
)
@pytest.mark.parametrize("device", [HOST, card(8)], ids=["cpu", "gpu"])
def test_large_pictures_are_decoded_in_tiles(
    width: int, height: int, tile_px: int | None, device: DeviceFacts
) -> None:
    wanted = parameters(width=width, height=height)
    assert plan(wanted, model_of(1), device).vae_tile_px == tile_px


def test_plan_survives_its_own_dictionary() -> None:
    chosen = plan(parameters(), model_of(1), card(8))
    assert Plan(**chosen.as_dict()) == chosen
