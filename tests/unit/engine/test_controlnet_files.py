"""ControlNets in one file draw as diffusers' pipelines do with the folder that they come from."""

from __future__ import annotations

from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

from support.engine_harness import EngineHarness, largest_difference, read_profile
from support.reference import Reference
from support.tiny_controlnet import make_tiny_controlnet, write_controlnet_file
from unit.engine.test_controlnets import EDGES, MAKERS, STEMS, drawn, options, use, wanted

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("family", "prefix", "placement"),
    [
        ("sd1", "control_model.", None),
        ("sd1", "", "group_offload"),
        ("sdxl", "control_model.", None),
        ("sdxl", None, "sequential_offload"),
        ("sdxl-small", None, None),
    ],
)
def test_a_file_draws_as_the_reference_does_with_its_folder(
    harness: EngineHarness, tmp_path: Path, family: str, prefix: str | None, placement: str | None
) -> None:
    """Under the original names, with and without what they begin with, and diffusers'."""
    family, _, small = family.partition("-")
    model = MAKERS[family](tmp_path / family)
    folder = make_tiny_controlnet(tmp_path / "made", model, small=bool(small))
    place = tmp_path / "controlnets" / "edges.safetensors"
    write_controlnet_file(folder, place, prefix)
    asked = wanted(use(harness), num_inference_steps=3)
    network = diffusers.ControlNetModel.from_pretrained(folder, low_cpu_mem_usage=False)
    kind = getattr(diffusers, f"{STEMS[family]}ControlNetPipeline")
    network.to(memory_format=torch.channels_last)
    reference = Reference(kind, model, controlnet=network)
    reference.lay_out(torch.channels_last)
    (expected,) = reference.pipeline(image=EDGES, **options(asked, reference)).images
    changes = {"placement": placement} if placement else {}
    chosen = harness.plan(asked, read_profile(model), **changes)
    folders = {family: model, f"{family}-edges": place}
    (found,) = drawn(harness, folders, family, asked, chosen=chosen)
    assert largest_difference(found, np.asarray(expected)) == 0
