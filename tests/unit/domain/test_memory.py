"""The memory planner against what was measured, and on simulated cards. Pure: nothing is loaded.

tests/fixtures/memory holds what tests/gpu/measure_memory.py measured: jobs of two steps on models
of SD 1.5 and SDXL size with random weights, float16, on an NVIDIA H200. No AMD card is behind it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockiln.domain.ladder import (
    DENOISE_LADDER,
    IN_PIECES_RUNGS,
    DecodeRung,
    DenoiseRung,
    Rungs,
)
from rockiln.domain.memory import (
    Workload,
    capabilities,
    estimate,
    first_rungs_that_fit,
    fits,
    guides_by_pairs,
    largest_size_that_fits,
    weights_at_rest,
)
from rockiln.domain.model import DeviceFacts
from rockiln.domain.plan import admit, plan
from rockiln.domain.quantisation import QuantisedWeights
from support.known_models import CONFIGS, known_profile, with_controlnets
from support.parameters import parameters

MEASURED = Path(__file__).parents[2] / "fixtures" / "memory"
TABLE = json.loads((MEASURED / "nvidia_h200_table.json").read_text())
TRANSFORMERS = json.loads((MEASURED / "nvidia_h200_transformers.json").read_text())
MORE = json.loads((MEASURED / "nvidia_h200_more.json").read_text())
PIECES = json.loads((MEASURED / "nvidia_h200_pieces.json").read_text())
CARDS = json.loads((MEASURED / "nvidia_h200_cards.json").read_text())
SERVICE = json.loads((MEASURED / "nvidia_h200_service.json").read_text())
GIB = 1 << 30
SIMULATED_GIB = (8, 12, 16, 20, 24)
# Of the measured peak; the bound.
OVER_MOST, UNDER_MOST = 0.10, 0.05
MEASURED_ROWS = [*TABLE["rows"], *TRANSFORMERS["rows"], *MORE["rows"], *PIECES["rows"]]


def card(gib: float, **changes: Any) -> DeviceFacts:
    facts = DeviceFacts("gpu", "simulated", int(gib * GIB), 2, "rocm", "gfx1100", 64 * GIB)
    return replace(facts, **changes)


def name_of(row: dict[str, Any]) -> str:
    words = ("model", "width", "height", "batch", "denoise", "decode", "scores", "unload")
    more = (f"{row['controlnets']}nets", *row["kinds"].values()) if "kinds" in row else ()
    return "-".join((*(str(row[word]) for word in words), *more))


@pytest.mark.parametrize("row", MEASURED_ROWS, ids=name_of)
def test_prediction_is_within_its_bound_of_the_measured_peak(row: dict[str, Any]) -> None:
    held = {part: QuantisedWeights(**facts) for part, facts in row.get("held", {}).items()}
    model = replace(with_controlnets(row["model"], row.get("controlnets", 0)), quantised=held)
    device = DeviceFacts(**TABLE["hardware"])
    if row["scores"]:
        device = replace(device, fused_attention_width=0)
    predicted = estimate(
        model,
        Workload(row["width"], row["height"], row["batch"], model.half, guides_by_pairs(model)),
        Rungs(DenoiseRung(row["denoise"]), DecodeRung(row["decode"])),
        device,
        unload_before_decode=row["unload"],
    ).device_bytes
    assert -UNDER_MOST <= predicted / row["peak_bytes"] - 1 <= OVER_MOST


def test_the_measurement_covers_what_it_should() -> None:
    assert len(TABLE["rows"]) >= 40
    measured = {row["denoise"] for row in MEASURED_ROWS}
    assert measured == {rung.value for rung in DenoiseRung}
    assert {row["decode"] for row in MEASURED_ROWS} >= {
        "full", "tiled", "small_tiles", "other_dtype",
    }  # fmt: skip
    assert {row["model"] for row in MEASURED_ROWS} == set(CONFIGS)
    kinds = {kind for row in MORE["rows"] for kind in row["kinds"].values()}
    assert kinds == {"q8_0", "f8_e4m3", "q6_k", "q5_1", "q4_k", "q4_0", "q3_k", "iq4_nl"}
    assert max(row["controlnets"] for row in MORE["rows"]) == 3
    assert {"torch", "diffusers", "cuda"} <= set(TABLE["versions"])


def test_nearly_each_job_ran_again_with_no_more_memory_than_was_predicted_for_it() -> None:
    """In pieces the allocator wants up to a fifth more of 1 to 2 GiB, which no card is near to."""
    whole: list[float] = []
    pieces: list[float] = []
    for row in (row for row in MEASURED_ROWS if "enough_at" in row):
        in_pieces = DenoiseRung(row["denoise"]) in IN_PIECES_RUNGS
        (pieces if in_pieces else whole).append(row["enough_at"])
    for held, most, nearly in ((whole, 1.1, 0.9), (pieces, 1.2, 0.5)):
        assert max(held) <= most
        assert sum(share <= 1.0 for share in held) >= nearly * len(held)


@pytest.mark.parametrize("row", CARDS["rows"], ids=lambda row: f"{row['card_gib']}-{name_of(row)}")
def test_the_plan_of_a_simulated_card_is_one_that_made_a_picture(row: dict[str, Any]) -> None:
    facts = DeviceFacts(**CARDS["hardware"])
    device = replace(facts, reserved_bytes=facts.total_bytes - row["card_gib"] * GIB)
    wanted = parameters(width=row["width"], height=row["height"], num_images=row["batch"])
    chosen = plan(wanted, known_profile(row["model"]), device)
    assert row["outcome"] == "picture"
    assert chosen.rungs.as_dict() == {"denoise": row["denoise"], "decode": row["decode"]}
    assert chosen.unload_before_decode is row["unload"]
    assert chosen.predicted_bytes <= row["card_gib"] * GIB


@pytest.mark.parametrize(
    "row",
    SERVICE["rows"],
    ids=lambda row: "-".join(
        str(row[word]) for word in ("card_gib", "model", "width", "num_images", "controlnets")
    ),
)
def test_a_job_of_the_service_on_a_simulated_card_went_as_planned(row: dict[str, Any]) -> None:
    """tests/gpu/measure_cards.py: ``rockiln serve`` with its supervisor and engine, on a GPU."""
    facts = DeviceFacts(**CARDS["hardware"])
    device = replace(facts, reserved_bytes=facts.total_bytes - row["card_gib"] * GIB)
    model = with_controlnets(row["model"], row["controlnets"])
    if row["outcome"] == "refused":
        sizes = {name: row[name] for name in ("width", "height", "num_images")}
        assert not admit(parameters(**sizes), model, device).fits
        return
    assert (row["outcome"], row["faults"]) == ("picture", [])
    predicted = estimate(
        model,
        Workload(row["width"], row["height"], row["batch"], "float16", guides_by_pairs(model)),
        Rungs(DenoiseRung(row["denoise"]), DecodeRung(row["decode"])),
        device,
        unload_before_decode=row["unload"],
    ).device_bytes
    if "beside" in row:  # what the engine had proven itself with was still loaded
        other = known_profile(row["beside"])
        predicted += weights_at_rest(other, "float16", "float16", resident=True, device="gpu")[0]
    assert predicted <= row["card_gib"] * GIB
    assert -UNDER_MOST <= predicted / row["peak_bytes"] - 1 <= OVER_MOST


def test_the_service_ran_enough_jobs_and_none_met_an_out_of_memory() -> None:
    made = [row for row in SERVICE["rows"] if row["outcome"] == "picture"]
    assert len(made) >= 40
    assert {row["card_gib"] for row in made} >= set(SIMULATED_GIB)
    assert {row["model"] for row in made} == {"sd15", "sdxl", "sd3", "sd35", "flux"}
    assert not any(row["faults"] for row in made)


def test_flux_is_told_its_guidance_and_needs_no_second_sample() -> None:
    flux, sd3 = known_profile("flux"), known_profile("sd3")
    wanted, tiny = parameters(guidance_scale=3.5), card(0.9)
    assert plan(wanted, flux, tiny).rungs.denoise is DenoiseRung.SEQUENTIAL_OFFLOAD
    assert plan(wanted, sd3, tiny).rungs.denoise is DenoiseRung.SPLIT_BATCH


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_a_transformer_has_no_sliced_attention(name: str) -> None:
    """The slices are made for UNets' attention; queries of text and picture come together."""
    old = card(24, fused_attention_width=0)
    assert DenoiseRung.SLICED not in capabilities(known_profile(name), old, samples=2).denoise


@pytest.mark.parametrize("gib", SIMULATED_GIB)
@pytest.mark.parametrize("side", [512, 768, 1024])
def test_sd15_stays_whole_on_every_card(gib: int, side: int) -> None:
    chosen = plan(parameters(width=side, height=side), known_profile("sd15"), card(gib))
    assert (chosen.rungs, chosen.unload_before_decode) == (Rungs(), False)


@pytest.mark.parametrize(
    ("gib", "denoise", "unload"),
    [
        (8, "model_offload", False),
        (12, "full", True),
        (16, "full", False),
        (20, "full", False),
        (24, "full", False),
    ],
)
def test_sdxl_at_1024_on_cards(gib: int, denoise: str, unload: bool) -> None:
    chosen = plan(parameters(width=1024, height=1024), known_profile("sdxl"), card(gib))
    assert chosen.rungs == Rungs(DenoiseRung(denoise))
    assert chosen.unload_before_decode is unload


@pytest.mark.parametrize(
    ("gib", "rungs"),
    [
        (6, Rungs(DenoiseRung.GROUP_OFFLOAD, DecodeRung.TILED)),
        (4, Rungs(DenoiseRung.GROUP_OFFLOAD, DecodeRung.TILED)),
        (2, Rungs(DenoiseRung.GROUP_OFFLOAD, DecodeRung.SMALL_TILES)),
        (0.8, None),
    ],
)
def test_sdxl_on_small_cards(gib: float, rungs: Rungs | None) -> None:
    work = Workload(1024, 1024, 1, "float16")
    assert first_rungs_that_fit(known_profile("sdxl"), work, card(gib)) == rungs


@pytest.mark.parametrize(
    ("model", "gib", "denoise"),
    [
        # 4 GiB of denoiser and 9 of T5, which comes in blocks.
        ("sd3", 24, "full"), ("sd3", 16, "model_offload"), ("sd3", 12, "text_encoder_offload"),
        ("sd3", 8, "text_encoder_offload"), ("sd3", 4, "group_offload"),
        # The denoiser is what does not fit.
        ("flux", 24, "group_offload"), ("flux", 8, "group_offload"),
        ("z_image", 12, "group_offload"), ("z_image", 8, "group_offload"),
        ("qwen_image", 8, "group_offload"),
    ],
)  # fmt: skip
def test_a_text_encoder_that_is_too_large_comes_in_pieces(
    model: str, gib: int, denoise: str
) -> None:
    admission = admit(parameters(width=1024, height=1024), known_profile(model), card(gib))
    assert admission.rungs == Rungs(DenoiseRung(denoise))
    assert admission.predicted.device_bytes <= gib * GIB
    # What is not on the device is on the host.
    whole = estimate(known_profile(model), Workload(1024, 1024, 1, "float16"), Rungs(), card(99))
    assert admission.predicted.host_bytes == whole.host_bytes


def test_an_encoder_of_unknown_shape_is_not_taken_for_small() -> None:
    unknown = replace(known_profile("sd3"), architecture=None)
    for gib, fits_at_all in ((8, False), (16, True)):
        found = admit(parameters(width=512, height=512), unknown, card(gib))
        assert found.fits is fits_at_all


def test_a_card_without_fused_attention_slices_it_where_the_scores_would_not_fit() -> None:
    """RDNA 2 has no flash kernel in torch: 1024 px on a 12 GiB RX 6700 XT ended in a crash."""
    rdna2 = card(12, capability="gfx1031", fused_attention_width=0, bfloat16=False)
    model = known_profile("sd15")
    small = plan(parameters(width=512, height=512), model, rdna2)
    large = plan(parameters(width=1024, height=1024), model, rdna2)
    assert (small.rungs.denoise, small.sliced_attention) == (DenoiseRung.FULL, False)
    assert (large.rungs.denoise, large.sliced_attention) == (DenoiseRung.SLICED, True)
    whole = estimate(model, Workload(1024, 1024, 1, "float16"), Rungs(), rdna2)
    assert whole.device_bytes > 30 * GIB


def test_fewer_rows_share_a_forward_before_weights_are_moved() -> None:
    sizes = dict.fromkeys((24, 9), 0)
    for gib in sizes:
        wanted = parameters(width=1024, height=1024, num_images=4)
        chosen = plan(wanted, known_profile("sdxl"), card(gib))
        assert chosen.rungs.denoise is DenoiseRung.FULL
        sizes[gib] = chosen.max_batch_rows
    assert sizes == {24: 4, 9: 2}


def test_reserved_memory_is_not_planned_with() -> None:
    wanted = parameters(width=1024, height=1024)
    free = plan(wanted, known_profile("sdxl"), card(16))
    kept = plan(wanted, known_profile("sdxl"), card(16, reserved_bytes=8 * GIB))
    assert (free.placement, kept.placement) == ("resident", "model_offload")


def test_a_host_too_small_for_offloaded_weights_is_no_way_out() -> None:
    work = Workload(1024, 1024, 1, "float16")
    model = known_profile("sdxl")
    assert first_rungs_that_fit(model, work, card(6)) is not None
    assert first_rungs_that_fit(model, work, card(6, host_bytes=6 * GIB)) is None


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
@pytest.mark.parametrize("gib", [3, 4, 6, *SIMULATED_GIB])
def test_the_largest_size_fits_and_the_next_does_not(name: str, gib: int) -> None:
    model, device = known_profile(name), card(gib)
    size = largest_size_that_fits(model, (1, 1), device, dtype="float16")
    assert size is not None
    assert first_rungs_that_fit(model, Workload(*size, 1, "float16"), device) is not None
    if size[0] < model.max_side_px:
        larger = Workload(size[0] + 64, size[1] + 64, 1, "float16")
        assert first_rungs_that_fit(model, larger, device) is None


def test_a_refused_job_is_told_a_size_that_is_then_taken() -> None:
    model, device = known_profile("sd15"), card(1.25)
    refused = admit(parameters(width=2048, height=2048), model, device)
    assert (refused.fits, refused.rungs) == (False, None)
    assert refused.predicted.device_bytes > device.usable_bytes
    assert refused.largest is not None
    width, height = refused.largest
    assert admit(parameters(width=width, height=height), model, device).fits


@given(
    side=st.integers(8, 32).map(lambda units: units * 64),
    batch=st.integers(1, 4),
    gib=st.floats(1, 32),
)
def test_more_work_never_needs_less_and_frugal_rungs_never_more(
    side: int, batch: int, gib: float
) -> None:
    model, device = known_profile("sdxl"), card(gib)
    work = Workload(side, side, batch, "float16")
    here = estimate(model, work, Rungs(), device).device_bytes
    for more in (replace(work, width=side + 64), replace(work, batch=batch + 1)):
        assert estimate(model, more, Rungs(), device).device_bytes >= here
    offloads = [
        estimate(model, work, Rungs(rung, DecodeRung.SMALL_TILES), device)
        for rung in DENOISE_LADDER[DENOISE_LADDER.index(DenoiseRung.MODEL_OFFLOAD) :]
    ]
    peaks = [found.device_bytes for found in offloads]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[0] <= here
    rungs = first_rungs_that_fit(model, work, device)
    if rungs is not None:
        assert fits(estimate(model, work, rungs, device, unload_before_decode=True), device)


def test_capabilities_are_those_of_device_and_model() -> None:
    sdxl, sd15 = known_profile("sdxl"), known_profile("sd15")
    on_amd = capabilities(sd15, card(8), samples=2)
    assert DecodeRung.MIOPEN_FAST_FIND in on_amd.decode
    assert DenoiseRung.SLICED not in on_amd.denoise
    on_nvidia = capabilities(sd15, card(8, backend="cuda"), samples=1)
    assert DecodeRung.MIOPEN_FAST_FIND not in on_nvidia.decode
    assert DenoiseRung.SPLIT_BATCH not in on_nvidia.denoise
    # SDXL's decoder works in float32 as it is: another dtype could only overflow again.
    assert DecodeRung.OTHER_DTYPE not in capabilities(sdxl, card(8), samples=2).decode
    on_cpu = capabilities(sd15, DeviceFacts("cpu", "host", 16 * GIB, 2), samples=2)
    assert DecodeRung.CPU not in on_cpu.decode
    assert on_cpu.denoise == {DenoiseRung.FULL, DenoiseRung.SPLIT_BATCH}


@pytest.mark.parametrize(("name", "parameters"), [("sd15", 361_279_120), ("sdxl", 1_251_014_160)])
def test_a_controlnet_counts_with_weights_and_what_it_gives(name: str, parameters: int) -> None:
    work = Workload(1024, 1024, 1, "float16")
    plain, one, two = (with_controlnets(name, count) for count in (0, 1, 2))
    assert one.controlnets[0].parameters == parameters
    for rung in DenoiseRung:
        found = [
            estimate(model, work, Rungs(rung, DecodeRung.FULL), card(64))
            for model in (plain, one, two)
        ]
        peaks = [each.by_stage["denoise"] for each in found]
        hosts = [each.host_bytes for each in found]
        whole = rung not in IN_PIECES_RUNGS
        weights = 2 * parameters if whole else 0
        assert peaks[1] - peaks[0] > weights
        assert (peaks[2] - peaks[1] > weights) is whole
        assert hosts[2] - hosts[1] == hosts[1] - hosts[0] == 2 * parameters


@pytest.mark.parametrize(("gib", "count", "denoise"), [
    (12, 0, "full"), (12, 1, "full"), (12, 2, "model_offload"),
    (10, 1, "model_offload"), (8, 0, "model_offload"), (8, 1, "group_offload"),
])  # fmt: skip
def test_sdxl_makes_room_for_controlnets(gib: int, count: int, denoise: str) -> None:
    wanted = parameters(width=1024, height=1024)
    chosen = plan(wanted, with_controlnets("sdxl", count), card(gib))
    assert chosen.rungs.denoise.value == denoise
    assert chosen.predicted_bytes <= gib * GIB
