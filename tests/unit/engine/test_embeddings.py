"""Textual inversions: what they do to a picture, that they leave no trace, which are refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import save_file

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.model import ModelProfile
from rockiln.registry.addons import SUFFIX
from rockiln.registry.embeddings import (
    EMBEDDINGS_FOLDER,
    embedding_files,
    find_embeddings,
    read_embedding,
    text_widths,
)
from support.engine_harness import EngineHarness, largest_difference, read_profile
from support.parameters import parameters
from support.reference import Reference
from support.tiny_sdxl import make_tiny_sdxl

pytestmark = pytest.mark.slow
WIDTH = 32
Tensors = dict[str, torch.Tensor]


def vectors(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn((count, WIDTH), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Writes files of textual inversions; name → path."""

    def write(files: dict[str, Tensors]) -> dict[str, str]:
        (tmp_path / EMBEDDINGS_FOLDER).mkdir(exist_ok=True)
        for name, tensors in files.items():
            save_file(tensors, tmp_path / EMBEDDINGS_FOLDER / f"{name}{SUFFIX}")
        return find_embeddings([tmp_path], files)

    return write


@pytest.mark.parametrize(
    "tensors",
    [{"emb_params": vectors(1)}, {"emb_params": vectors(3)}, {"<any>": vectors(1)[0]}],
    ids=["one vector", "three vectors", "diffusers"],
)
@pytest.mark.parametrize(
    "texts",
    [
        {"prompt": "a red ink-wash boat"},
        {"prompt": "a red boat", "negative_prompt": "ink-wash, night"},
        {"prompt": "ink-wash"},
    ],
    ids=["prompt", "negative", "alone"],
)
def test_a_picture_equals_that_of_load_textual_inversion(  # noqa: PLR0917 (by name)
    harness: EngineHarness,
    tiny: ModelProfile,
    tiny_folder: Path,
    save: Callable[..., dict[str, str]],
    tensors: Tensors,
    texts: dict[str, str],
) -> None:
    asked = parameters(embeddings=("ink-wash",), num_inference_steps=3, **texts)
    files = save({"ink-wash": tensors})
    (picture,) = harness.run(asked, tiny, embedding_files=files)
    reference = Reference(StableDiffusionPipeline, tiny_folder)
    reference.lay_out(torch.channels_last)
    (plain,) = reference.draw(asked)
    reference.pipeline.load_textual_inversion(files["ink-wash"], token="ink-wash")
    (expected,) = reference.draw(asked)
    assert largest_difference(harness.pixels(picture), expected) == 0
    assert largest_difference(plain, expected) > 0


def test_sdxl_has_vectors_for_both_text_encoders(
    harness: EngineHarness, tmp_path: Path, save: Callable[..., dict[str, str]]
) -> None:
    folder = make_tiny_sdxl(tmp_path / "models" / "tiny-sdxl")
    tensors = {"clip_l": vectors(2), "clip_g": vectors(2, seed=2)}
    asked = parameters(
        prompt="a boat, ink", negative_prompt="ink", embeddings=("ink",), num_inference_steps=3
    )
    (picture,) = harness.run(asked, read_profile(folder), embedding_files=save({"ink": tensors}))
    reference = Reference(StableDiffusionXLPipeline, folder)
    reference.lay_out(torch.channels_last)
    pipeline = reference.pipeline
    for name, number in (("clip_l", ""), ("clip_g", "_2")):
        pipeline.load_textual_inversion(
            tensors[name],
            token="ink",
            text_encoder=getattr(pipeline, f"text_encoder{number}"),
            tokenizer=getattr(pipeline, f"tokenizer{number}"),
        )
    (expected,) = reference.draw(asked)
    assert largest_difference(harness.pixels(picture), expected) == 0


def test_pictures_after_it_are_those_before(
    harness: EngineHarness, tiny: ModelProfile, save: Callable[..., dict[str, str]]
) -> None:
    files = save({"ink": {"emb_params": vectors(2)}, "Oil.2": {"emb_params": vectors(1, seed=3)}})
    asked = parameters(prompt="a boat, INK and oil.2.", num_inference_steps=3)
    with_both = parameters(prompt=asked.prompt, num_inference_steps=3, embeddings=("ink", "Oil.2"))
    (before,) = harness.run(asked, tiny)
    (both,) = harness.run(with_both, tiny, embedding_files=files)
    (again,) = harness.run(with_both, tiny, embedding_files=dict(reversed(files.items())))
    harness.events.clear()
    harness.submit(asked, tiny, job_id="plain")
    harness.submit(with_both, tiny, job_id="inked", embedding_files=files)
    harness.finish()
    (after,), (beside,) = harness.encoded("plain"), harness.encoded("inked")
    assert before.digest == after.digest
    assert both.digest == beside.digest
    assert before.digest != both.digest
    assert harness.pixels(again).tobytes() == harness.pixels(both).tobytes()
    said: Any = both.details
    assert list(said["parameters"]["embeddings"]) == ["ink", "Oil.2"]
    ink = hashlib.sha256(Path(files["ink"]).read_bytes()).hexdigest()
    assert said["embeddings"]["ink"] == ink
    assert "embeddings" not in before.details


def test_a_weighted_text_weighs_its_vectors(
    harness: EngineHarness, tiny: ModelProfile, save: Callable[..., dict[str, str]]
) -> None:
    files = save({"ink": {"emb_params": vectors(2)}})
    drawn = []
    for text in ("a (ink:1.2) boat", "a (embedding:ink:1.2) boat", "a ink boat"):
        asked = parameters(prompt=text, embeddings=("ink",), prompt_syntax="weighted")
        (picture,) = harness.run(asked, tiny, embedding_files=files)
        drawn.append(harness.pixels(picture).tobytes())
    weighed, prefixed, plain = drawn
    assert weighed == prefixed != plain


def test_what_is_not_read_is_told_with_the_name(
    harness: EngineHarness, tiny: ModelProfile, save: Callable[..., dict[str, str]]
) -> None:
    asked = parameters(prompt="x " * 75 + "ink", embeddings=("ink",), num_inference_steps=1)
    files = save({"ink": {"emb_params": vectors(4)}})
    (picture,) = harness.run(asked, tiny, embedding_files=files)
    (warning,) = picture.warnings
    assert "4 tokens longer" in warning
    assert "“ink”" in warning


def test_a_file_of_another_base_fails_the_job_and_changes_nothing(
    harness: EngineHarness, tiny: ModelProfile, save: Callable[..., dict[str, str]]
) -> None:
    """It was another one when the job was accepted."""
    files = save({"ink": {"emb_params": torch.zeros(1, 768)}})
    asked = parameters(prompt="ink", embeddings=("ink",))
    harness.run(asked, tiny, embedding_files=files)
    failed = harness.failure()
    assert (failed.code, "another base" in failed.detail) == ("broken_model", True)
    (picture,) = harness.run(parameters(), tiny)
    assert picture.warnings == []


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"emb_params": torch.zeros(1, 768)}, "are 768 wide, the model's text encoders 32"),
        ({"clip_l": vectors(1), "clip_g": vectors(1)}, "are 32 and 32 wide"),
        ({"clip_l": vectors(1), "clip_g": vectors(2)}, "no textual inversion"),
        ({"a": vectors(1), "b": vectors(1)}, "2 tensors"),
        ({"emb_params": torch.zeros(1, 1, WIDTH)}, "no textual inversion"),
        ({"emb_params": torch.zeros(0, WIDTH)}, "no textual inversion"),
        ({"emb_params": torch.zeros(())}, "no textual inversion"),
        ({"emb_params": vectors(76)}, "76 vectors, over 75"),
        ({"emb_params": torch.zeros(1, WIDTH, dtype=torch.int8)}, "vectors of I8"),
        ({}, "0 tensors"),
    ],
)
def test_what_is_no_textual_inversion_of_this_model_is_refused(
    tiny: ModelProfile, save: Callable[..., dict[str, str]], tensors: Tensors, words: str
) -> None:
    (path,) = save({"bad": tensors}).values()
    with pytest.raises(BrokenModelError, match=words):
        read_embedding(Path(path)).check_base(text_widths(tiny))


def test_only_plain_files_within_the_models_folder_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "models" / EMBEDDINGS_FOLDER
    folder.mkdir(parents=True)
    secret = tmp_path / "secret.safetensors"
    save_file({"emb_params": vectors(1)}, secret)
    (folder / "link.safetensors").symlink_to(secret)
    (folder / "torn.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    (folder / "pickle.pt").write_bytes(b"\x80\x04")
    (folder / "..hidden.safetensors").write_bytes(b"")
    found = embedding_files([tmp_path / "models"])
    assert sorted(found) == ["link", "torn"]
    for name, words in (("link", "leads out"), ("torn", "truncated")):
        with pytest.raises(BrokenModelError, match=words):
            read_embedding(found[name])
