"""A row alone equals diffusers' StableDiffusionPipeline bit for bit (CPU, float32).

Several pictures of one request are within 1/255 of the pipeline's batch: the pipeline runs them in
one forward, the engine one after the other on a CPU, and sums are ordered by the batch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

from rockiln.domain.model import ModelProfile
from rockiln.domain.request import GenerationParameters
from rockiln.domain.sampling import DIFFUSION_SCHEDULERS, SCHEDULER_NAMES
from support.engine_harness import EngineHarness, largest_difference
from support.parameters import parameters
from support.reference import REFERENCE_SCHEDULERS, Reference

pytestmark = pytest.mark.slow

SIZED = ("dpmpp_2m", "ddim", "euler_ancestral")


@pytest.fixture(scope="module")
def reference(tiny_folder: Path) -> Reference:
    return Reference(StableDiffusionPipeline, tiny_folder)


@pytest.fixture(params=["channels_last", "contiguous"])
def channels_last(request: pytest.FixtureRequest, reference: Reference) -> bool:
    last = bool(request.param == "channels_last")
    reference.lay_out(torch.channels_last if last else torch.contiguous_format)
    return last


def _assert_equal(
    harness: EngineHarness,
    reference: Reference,
    model: ModelProfile,
    parameters: GenerationParameters,
    *,
    channels_last: bool,
    within: int = 0,
) -> None:
    chosen = harness.plan(parameters, model, channels_last=channels_last)
    pictures = harness.run(parameters, model, chosen=chosen)
    expected = reference.draw(parameters)
    assert len(pictures) == len(expected) == parameters.num_images
    for picture, pixels in zip(pictures, expected, strict=True):
        assert largest_difference(harness.pixels(picture), pixels) <= within


def test_reference_covers_every_scheduler() -> None:
    assert set(REFERENCE_SCHEDULERS) == set(SCHEDULER_NAMES)


@pytest.mark.parametrize(
    ("scheduler", "changes"),
    [
        (scheduler, changes)
        for place, changes in enumerate(
            [
                {"guidance_scale": 7.5, "num_inference_steps": 6, "negative_prompt": "house"},
                {"guidance_scale": 1.0, "num_inference_steps": 6},
                {"width": 96},
                {"height": 96},
                {"width": 72, "height": 104},
            ]
        )
        # What a scheduler does depends on no size.
        for scheduler in (DIFFUSION_SCHEDULERS if place == 0 else SIZED)
    ],
)
def test_picture_equals_reference(  # noqa: PLR0917 (pytest hands them by name)
    harness: EngineHarness,
    reference: Reference,
    tiny: ModelProfile,
    channels_last: bool,
    scheduler: str,
    changes: dict[str, Any],
) -> None:
    wanted = parameters(scheduler=scheduler, **changes)
    _assert_equal(harness, reference, tiny, wanted, channels_last=channels_last)


@pytest.mark.parametrize("scheduler", DIFFUSION_SCHEDULERS)
@pytest.mark.parametrize("steps", [1, 2, 15])
def test_picture_equals_reference_when_steps_are_few_or_many(
    harness: EngineHarness, reference: Reference, tiny: ModelProfile, scheduler: str, steps: int
) -> None:
    reference.lay_out(torch.channels_last)
    wanted = parameters(scheduler=scheduler, num_inference_steps=steps)
    _assert_equal(harness, reference, tiny, wanted, channels_last=True)


@pytest.mark.parametrize("negative_prompt", ["", "night tree"])
@pytest.mark.parametrize("prompt", ["a", "x " * 200], ids=["short", "past the window"])
def test_picture_equals_reference_when_texts_differ(
    harness: EngineHarness,
    reference: Reference,
    tiny: ModelProfile,
    prompt: str,
    negative_prompt: str,
) -> None:
    reference.lay_out(torch.channels_last)
    wanted = parameters(prompt=prompt, negative_prompt=negative_prompt, seed=2**32 - 1)
    _assert_equal(harness, reference, tiny, wanted, channels_last=True)


@pytest.mark.parametrize("scheduler", SIZED)
def test_several_pictures_are_within_one_step_of_reference(
    harness: EngineHarness,
    reference: Reference,
    tiny: ModelProfile,
    channels_last: bool,
    scheduler: str,
) -> None:
    wanted = parameters(scheduler=scheduler, num_images=3, width=96)
    _assert_equal(harness, reference, tiny, wanted, channels_last=channels_last, within=1)


@pytest.mark.parametrize("scheduler", DIFFUSION_SCHEDULERS)
def test_each_of_several_pictures_equals_its_solo_run_bit_for_bit(
    harness: EngineHarness, tiny: ModelProfile, scheduler: str
) -> None:
    together = harness.run(parameters(scheduler=scheduler, num_images=3), tiny)
    for index, picture in enumerate(list(together)):
        (alone,) = harness.run(parameters(scheduler=scheduler, seed=7 + index), tiny)
        assert alone.digest == picture.digest
