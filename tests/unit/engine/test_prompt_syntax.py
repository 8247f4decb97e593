"""Weights in prompts, texts past the window, and layers of the text encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from rockiln.domain.model import ModelProfile
from rockiln.engine.families import FAMILIES
from rockiln.engine.families.interface import PromptText
from rockiln.engine.families.weighted_text import Part, chunks_of, parts_of
from support.engine_harness import EngineHarness, largest_difference, read_profile
from support.parameters import parameters
from support.reference import Reference
from support.tiny_sd1 import make_tokenizer
from support.tiny_sdxl import make_tiny_sdxl

LONG = "a red boat on a lake " * 30


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a boat", [("a boat", 1.0)]),
        ("a (boat)", [("a ", 1.0), ("boat", 1.1)]),
        ("a ((boat))", [("a ", 1.0), ("boat", 1.21)]),
        ("a [boat] b", [("a ", 1.0), ("boat", 1 / 1.1), (" b", 1.0)]),
        ("a (red boat:1.5), b", [("a ", 1.0), ("red boat", 1.5), (", b", 1.0)]),
        ("(a (b:2):0.5)", [("a ", 0.5), ("b", 1.0)]),
        (r"a \(b\) \[c\] \\", [(r"a (b) [c] " + "\\", 1.0)]),
        ("a: b :) Bob", [("a: b :) Bob", 1.0)]),
        ("(open", [("open", 1.1)]),
        ("closed) and ]", [("closed) and ]", 1.0)]),
        ("(a:b:1.2)", [("a:b", 1.2)]),
        ("(a:-0.5)", [("a", -0.5)]),
        ("", []),
    ],
)
def test_brackets_are_weights(prompt: str, parts: list[tuple[str, float]]) -> None:
    found = parts_of(prompt)
    assert [part.text for part in found] == [text for text, _ in parts]
    assert [part.weight for part in found] == pytest.approx([weight for _, weight in parts])


def test_break_ends_a_chunk() -> None:
    assert parts_of("a BREAK (b:1.2)")[1:] == [Part("BREAK", -1.0), Part(" ", 1.0), Part("b", 1.2)]
    chunks = chunks_of(make_tokenizer(), "red BREAK boat")
    assert [len(chunk.ids) for chunk in chunks] == [1, 1]


def test_a_long_text_is_cut_where_the_window_ends() -> None:
    tokenizer = make_tokenizer()
    whole = tokenizer(LONG, add_special_tokens=False).input_ids
    chunks = chunks_of(tokenizer, LONG)
    assert [len(chunk.ids) for chunk in chunks] == [75] * (len(whole) // 75) + [len(whole) % 75]
    assert [token for chunk in chunks for token in chunk.ids] == whole


@pytest.fixture(scope="module")
def sdxl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_sdxl(tmp_path_factory.mktemp("models") / "tiny-sdxl")


@pytest.fixture(params=["sd1", "sdxl"])
def subject(
    request: pytest.FixtureRequest, tiny_folder: Path, sdxl_folder: Path
) -> tuple[ModelProfile, Reference]:
    """A model and the reference for it."""
    folder = tiny_folder if request.param == "sd1" else sdxl_folder
    kind = StableDiffusionPipeline if request.param == "sd1" else StableDiffusionXLPipeline
    reference = Reference(kind, folder)
    for part in ("unet", "vae", "text_encoder"):
        reference.pipeline.components[part].to(memory_format=torch.channels_last)
    # diffusers 0.42 looks for the encoder's norm one level deeper than transformers 5 has it; not
    # as a submodule, which it would be twice then.
    encoder = reference.pipeline.text_encoder
    object.__setattr__(encoder, "text_model", encoder)
    return read_profile(folder), reference


def test_without_weights_a_picture_is_that_of_the_plain_prompt(
    harness: EngineHarness, subject: tuple[ModelProfile, Reference]
) -> None:
    model, reference = subject
    asked = {"model": model.id, "negative_prompt": "night tree"}
    (weighted,) = harness.run(parameters(prompt_syntax="weighted", **asked), model)
    (expected,) = reference.draw(parameters(**asked))
    assert largest_difference(harness.pixels(weighted), expected) == 0


@pytest.mark.parametrize("clip_skip", [2])
def test_clip_skip_equals_the_reference(
    harness: EngineHarness, subject: tuple[ModelProfile, Reference], clip_skip: int
) -> None:
    model, reference = subject
    asked = parameters(model=model.id, clip_skip=clip_skip, negative_prompt="house")
    (picture,) = harness.run(asked, model)
    (expected,) = reference.draw(asked)
    assert largest_difference(harness.pixels(picture), expected) == 0
    (usual,) = harness.run(parameters(model=model.id, negative_prompt="house"), model)
    assert usual.digest != picture.digest


def _encoded(harness: EngineHarness, model: ModelProfile, text: str, **options: Any) -> Any:
    shelved = harness.shelf.take(model, harness.plan(parameters(), model))
    prompt = PromptText(text, False, width=64, height=64, guidance_scale=4.0, **options)
    return FAMILIES[model.family].encode_prompt(shelved.model.components, prompt)


def test_each_chunk_is_encoded_as_it_would_be_alone(
    harness: EngineHarness, tiny: ModelProfile
) -> None:
    found = _encoded(harness, tiny, "red boat BREAK house", syntax="weighted")["prompt_embeds"]
    alone = [_encoded(harness, tiny, text)["prompt_embeds"] for text in ("red boat", "house")]
    assert torch.equal(found, torch.cat(alone, dim=1))


def test_a_weight_scales_its_tokens_and_keeps_the_mean(
    harness: EngineHarness, tiny: ModelProfile
) -> None:
    plain = _encoded(harness, tiny, "red boat")["prompt_embeds"]
    found = _encoded(harness, tiny, "red (boat:1.5)", syntax="weighted")["prompt_embeds"]
    by_hand = plain.clone()
    by_hand[:, 2] *= 1.5
    by_hand *= plain.mean() / by_hand.mean()
    assert torch.allclose(found, by_hand, atol=1e-5)
    assert torch.isclose(found.mean(), plain.mean(), atol=1e-5)


def test_a_long_prompt_is_read_to_its_end_and_its_negative_is_as_long(
    harness: EngineHarness, subject: tuple[ModelProfile, Reference]
) -> None:
    model, _ = subject
    asked = {"model": model.id, "prompt_syntax": "weighted"}
    (one,) = harness.run(parameters(prompt=LONG + "tree", **asked), model)
    (other,) = harness.run(parameters(prompt=LONG + "house", **asked), model)
    assert one.warnings == other.warnings == []
    assert largest_difference(harness.pixels(one), harness.pixels(other)) > 0
    (turned,) = harness.run(parameters(prompt="a", negative_prompt=LONG, **asked), model)
    assert turned.warnings == []
