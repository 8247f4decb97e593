"""The launch profiles of the documentation are what the planner does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rockiln.domain.model import DeviceFacts, ModelProfile
from rockiln.domain.plan import admit, plan
from rockiln.domain.request import GenerationRequest
from rockiln.domain.resolution import resolve
from rockiln.registry.known_models import known_models
from support.known_models import CONFIGS, known_profile

PAGE = Path(__file__).resolve().parents[3] / "service" / "docs" / "profiles.md"
T5 = "text_encoder_3"


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def profile(name: str) -> ModelProfile:
    model_id, _, without_t5 = name.partition(" without ")
    if model_id in CONFIGS:
        return known_profile(model_id)
    found = known_models()[model_id].profile()
    assert found is not None
    if not without_t5:
        return found
    return replace(
        found,
        component_bytes={n: v for n, v in found.component_bytes.items() if n != T5},
        component_parameters={n: v for n, v in found.component_parameters.items() if n != T5},
    )


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row[0]}, {row[1]}, {row[2]}")
def test_the_planner_reproduces_it(row: list[str]) -> None:
    _, name, size, gpu_gib, host_gib, planned, reported = row
    assert reported
    width, height = map(int, size.split("x"))
    model = profile(name)
    device = DeviceFacts(
        "gpu", "a card", int(gpu_gib) << 30, 8, "rocm", host_bytes=int(host_gib) << 30
    )
    request = GenerationRequest(prompt="a picture", width=width, height=height)
    parameters = resolve(request, model, seed=0, picture_format="png")
    admission = admit(parameters, model, device)
    if planned == "none: host":
        assert not admission.fits
        assert admission.predicted.device_bytes < device.total_bytes
        assert admission.predicted.host_bytes > 0.9 * device.host_bytes
        return
    rungs = plan(parameters, model, device).rungs
    assert admission.rungs == rungs
    assert planned == f"{rungs.denoise.value}, decode {rungs.decode.value}"


def test_every_row_is_read() -> None:
    assert len(rows()) >= 6
