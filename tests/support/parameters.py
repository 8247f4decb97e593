"""Requests for tests that do not care what is drawn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rockiln.domain.request import GenerationParameters

_PLAIN = GenerationParameters(
    prompt="a red boat on a lake",
    negative_prompt="",
    width=64,
    height=64,
    num_inference_steps=4,
    guidance_scale=4.0,
    seed=7,
    scheduler="dpmpp_2m",
    num_images=1,
    model="tiny",
    format="png",
)


def parameters(**changes: Any) -> GenerationParameters:
    """A small request; ``changes`` replace single fields."""
    return replace(_PLAIN, **changes)
