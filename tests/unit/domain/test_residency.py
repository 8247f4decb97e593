"""Which models stay in memory beside a job. Pure: no device is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockiln.domain.memory import HOST_SHARE
from rockiln.domain.model import DeviceFacts, ModelDefaults, ModelProfile
from rockiln.domain.plan import Plan, admit, plan
from rockiln.domain.residency import Held, beside_pinned, held_by, to_evict
from support.parameters import parameters

GIB = 1 << 30
CARD = DeviceFacts(
    kind="gpu", name="simulated", total_bytes=24 * GIB, threads=2, host_bytes=64 * GIB
)
HOST = DeviceFacts(kind="cpu", name="host", total_bytes=24 * GIB, threads=2)


def model_of(name: str, billions: float) -> ModelProfile:
    count = int(billions * 1e9)
    return ModelProfile(
        id=name,
        title="",
        family="sd1",
        licence="",
        path=f"/nowhere/{name}",
        defaults=ModelDefaults(512, 512, 25, 7.5, "dpmpp_2m"),
        min_side_px=64,
        max_side_px=2048,
        component_bytes={"unet": count * 4},
        component_parameters={"unet": count},
    )


sizes = st.integers(0, 40).map(lambda gib: gib * GIB // 2)


@given(
    held=st.lists(st.builds(Held, sizes, sizes, st.booleans()), max_size=6),
    device_peak=sizes,
    host_peak=sizes,
    device=st.sampled_from([CARD, HOST]),
)
def test_what_stays_is_never_predicted_over_the_budget(
    held: list[Held], device_peak: int, host_peak: int, device: DeviceFacts
) -> None:
    chosen = replace(
        plan(parameters(), model_of("one", 1), device),
        predicted_bytes=device_peak,
        predicted_host_bytes=host_peak,
    )
    gone = to_evict(list(enumerate(held)), chosen, device)
    loose = [number for number, each in enumerate(held) if not each.pinned]
    assert gone == loose[: len(gone)], "the one unused longest first, a pinned one never"

    def fits(going: list[int]) -> bool:
        staying = [each for number, each in enumerate(held) if number not in going]
        on_device = device_peak + sum(each.device_bytes for each in staying)
        on_host = host_peak + sum(each.host_bytes for each in staying)
        if device.kind == "cpu":
            return on_device <= device.total_bytes * HOST_SHARE
        return on_device <= device.total_bytes and on_host <= device.host_bytes * HOST_SHARE

    assert fits(gone) or gone == loose
    assert not gone or not fits(gone[:-1]), "no more than needed"


def test_two_models_that_fit_stay_and_a_third_that_does_not_sends_the_oldest_away() -> None:
    models = [model_of(name, 4) for name in ("one", "two", "three")]  # 8 GB each in float16
    plans = [plan(parameters(), model, CARD) for model in models]
    held = [held_by(model, chosen) for model, chosen in zip(models, plans, strict=True)]
    assert all(each.host_bytes == 0 for each in held)
    assert to_evict([("one", held[0])], plans[1], CARD) == []
    assert to_evict([("one", held[0]), ("two", held[1])], plans[2], CARD) == ["one"]
    on_hold = replace(held[0], pinned=True)
    assert to_evict([("one", on_hold), ("two", held[1])], plans[2], CARD) == ["two"]


@pytest.mark.parametrize(
    ("changes", "on_device", "on_host"),
    [
        ({}, 2.13, 0),
        ({"unload_before_decode": True}, 2.13, 2.13),
        ({"placement": "model_offload"}, 0, 2),
    ],
)
def test_a_model_at_rest_holds_its_weights_where_they_lie(
    changes: dict[str, object], on_device: float, on_host: float
) -> None:
    model = model_of("one", 1)
    chosen: Plan = replace(plan(parameters(), model, CARD), **changes)  # type: ignore[arg-type]
    held = held_by(model, chosen)
    assert held.device_bytes == pytest.approx(on_device * 1e9, rel=0.01)
    assert held.host_bytes == pytest.approx(on_host * 1e9, rel=0.01)


def test_a_job_beside_a_pinned_model_is_planned_in_what_is_left() -> None:
    pinned, other = model_of("pinned", 8), model_of("other", 4)
    room = beside_pinned(CARD, [pinned], other)
    assert plan(parameters(), other, CARD).placement == "resident"
    beside = plan(parameters(), other, room)
    assert beside.placement != "resident"
    held = held_by(pinned, plan(parameters(), pinned, CARD), pinned=True)
    assert beside.predicted_bytes + held.device_bytes <= CARD.usable_bytes
    assert to_evict([("pinned", held)], beside, CARD) == []
    assert beside_pinned(CARD, [pinned], pinned) == CARD, "it is not in its own way"


def test_a_job_that_fits_no_way_beside_a_pinned_model_is_refused() -> None:
    pinned, other = model_of("pinned", 11.4), model_of("other", 1)
    large = parameters(width=2048, height=2048)
    assert admit(large, other, CARD).fits
    refused = admit(large, other, beside_pinned(CARD, [pinned], other))
    assert not refused.fits
    assert refused.largest is not None, "a smaller picture does"


def test_another_model_comes_into_the_same_child_whatever_its_decoder_works_in() -> None:
    one = plan(parameters(), model_of("one", 1), CARD)
    other = replace(one, decode_dtype="float32")
    assert one.needs_new_child(other)
    assert not one.needs_new_child(other, same_model=False)
    for moved in (
        replace(one, placement="model_offload"),
        replace(one, environment={"MIOPEN_FIND_MODE": "FAST"}),
    ):
        assert one.needs_new_child(moved, same_model=False)
