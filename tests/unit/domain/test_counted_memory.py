"""The memory planner against what was counted on torch's meta device, for what no GPU has measured.

``python -m support.counted_models`` writes the counts; tests/unit/engine counts some of them again.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rockiln.domain.ladder import IN_PIECES_RUNGS, DecodeRung, DenoiseRung, Rungs
from rockiln.domain.memory import (
    CONTEXT_BYTES,
    WORKSPACE_BYTES,
    Estimate,
    Workload,
    estimate,
    guides_by_pairs,
)
from rockiln.domain.model import DeviceFacts
from rockiln.domain.quantisation import QuantisedWeights
from support.known_models import with_controlnets

FIXTURES = Path(__file__).parents[2] / "fixtures" / "memory"
COUNTED = json.loads((FIXTURES / "counted.json").read_text())
CARD = DeviceFacts("gpu", "on paper", 1 << 40, 8, "cuda", "sm_90", 1 << 41)
OVER_MOST, UNDER_MOST = 0.10, 0.05
# By what a measured peak is off: context and workspaces differ, and so do segments' ends.
OFF_MOST, OFF_BYTES = 0.02, 64 << 20
OF_CASE = ("model", "width", "height", "batch", "denoise", "decode", "unload")


def name_of(row: dict[str, Any]) -> str:
    words = [str(row[word]) for word in OF_CASE]
    kinds = [f"{part}={kind}" for part, kind in row["kinds"].items()]
    return "-".join([*words, f"{row['controlnets']}nets", *kinds])


def predicted(row: dict[str, Any]) -> Estimate:
    profile = with_controlnets(row["model"], row["controlnets"])
    held = {part: QuantisedWeights(**facts) for part, facts in row["held"].items()}
    return estimate(
        replace(profile, quantised=held),
        Workload(row["width"], row["height"], row["batch"], profile.half, guides_by_pairs(profile)),
        Rungs(DenoiseRung(row["denoise"]), DecodeRung(row["decode"])),
        CARD,
        unload_before_decode=row["unload"],
    )


def counted_bytes(row: dict[str, Any]) -> int:
    """As a card would have them: context and workspaces are those of the measured ones."""
    largest: int = max(stage["weights"] + stage["tensors"] for stage in row["by_stage"].values())
    in_pieces = DenoiseRung(row["denoise"]) in IN_PIECES_RUNGS
    return largest + CONTEXT_BYTES + (0 if in_pieces else WORKSPACE_BYTES)


@pytest.mark.parametrize("row", COUNTED["unmeasured"], ids=name_of)
def test_prediction_is_within_its_bound_of_the_counted_peak(row: dict[str, Any]) -> None:
    assert -UNDER_MOST <= predicted(row).device_bytes / counted_bytes(row) - 1 <= OVER_MOST


@pytest.mark.parametrize("row", COUNTED["measured"], ids=name_of)
def test_the_count_is_what_a_gpu_measured(row: dict[str, Any]) -> None:
    measured = [
        each["peak_bytes"]
        for name in ("table", "transformers", "pieces")
        for each in json.loads((FIXTURES / f"nvidia_h200_{name}.json").read_text())["rows"]
        if not each["scores"] and not each.get("controlnets")
        if all(each[word] == row[word] for word in OF_CASE)
    ]
    assert len(measured) == 1
    assert counted_bytes(row) == pytest.approx(measured[0], rel=OFF_MOST, abs=OFF_BYTES)


def test_the_counts_cover_what_no_gpu_has_measured() -> None:
    rows = COUNTED["unmeasured"]
    # Where SDXL's decoder is the peak, the workspaces of its convolutions are.
    for model in ("flux2", "z_image", "qwen_image", "flux", "sd35-large", "sd15"):
        found = {row["denoise"] for row in rows if row["model"] == model}
        assert {"full", "group_offload"} <= found
        pieces = {"text_encoder_offload", "sequential_offload"}
        assert pieces <= found or model == "sd15"
    kinds = {kind for row in rows for kind in row["kinds"].values()}
    assert kinds == {"q4_0", "q4_k", "q5_1", "q8_0"}
    assert max(row["controlnets"] for row in rows) == 3
