"""A picture file carries what made it, in both forms, and equal input gives equal bytes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rockiln.domain.model import ModelDefaults, ModelProfile
from rockiln.domain.plan import Plan
from rockiln.domain.request import PictureFormat
from rockiln.engine.picture_file import encode_picture, read_parameters_text, read_record
from rockiln.engine.png import Pixels
from rockiln.engine.record import Surroundings, make_record, parameters_of, parameters_text
from support.parameters import parameters

FORMATS: tuple[PictureFormat, ...] = ("png", "jpeg", "webp")
TEXTS = [
    "a red boat",
    "“quotes”, <tags & ampersands> 'n' \"more\"",
    "two\nlines\tand a tab",
    "船 и лодка 🛶",
    "Negative prompt: not this one\nSteps: 99",
    "control \x07 characters",
]


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def record_of(**changes: Any) -> dict[str, Any]:
    index = changes.pop("index", 0)
    return make_record(
        parameters(**changes),
        index=index,
        plan=Plan("cpu", "float32", "resident", channels_last=True, vae_tile_px=None),
        policies=["channels_last"],
        model=ModelProfile(
            id="tiny",
            title="Tiny",
            family="sd1",
            licence="MIT",
            path="/secret/place",
            defaults=ModelDefaults(64, 64, 4, 5.0, "ddim"),
            min_side_px=64,
            max_side_px=64,
            component_bytes={},
        ),
        revision="0123456789abcdef" * 4,
        batch_rows=1,
        surroundings=Surroundings("cpu", "AVX2", 2, {"rockiln": "0.1.0", "torch": "2"}),
    )


@pytest.mark.parametrize("picture_format", FORMATS)
@pytest.mark.parametrize("text", TEXTS)
def test_record_and_parameters_come_back(
    pixels: Pixels, picture_format: PictureFormat, text: str
) -> None:
    record = record_of(prompt=text, negative_prompt=text, format=picture_format)
    encoded = encode_picture(pixels, picture_format, record)
    assert encoded.warnings == []
    assert read_record(encoded.data) == record
    assert read_parameters_text(encoded.data) == parameters_text(record)
    assert encode_picture(pixels, picture_format, record).data == encoded.data


def test_png_keeps_every_pixel(pixels: Pixels) -> None:
    with Image.open(io.BytesIO(encode_picture(pixels, "png", record_of()).data)) as image:
        assert np.array_equal(np.asarray(image), pixels)
        assert image.text["parameters"].startswith("a red boat on a lake\nSteps: 4")  # type: ignore[attr-defined]


@pytest.mark.parametrize("picture_format", FORMATS)
def test_file_is_of_its_format(pixels: Pixels, picture_format: PictureFormat) -> None:
    with Image.open(io.BytesIO(encode_picture(pixels, picture_format, record_of()).data)) as image:
        assert (image.format, image.size) == (picture_format.upper(), (64, 48))


@pytest.mark.parametrize("picture_format", FORMATS)
def test_longest_prompts_are_carried_or_said_to_be_missing(
    pixels: Pixels, picture_format: PictureFormat
) -> None:
    record = record_of(prompt="🛶" * 10_000, negative_prompt="🛶" * 10_000)
    encoded = encode_picture(pixels, picture_format, record)
    if picture_format == "jpeg":
        assert len(encoded.warnings) == 2
        assert "Ask for png or webp" in encoded.warnings[0]
        assert read_record(encoded.data) is None
    else:
        assert encoded.warnings == []
        assert read_record(encoded.data) == record


def test_foreign_picture_has_no_record(pixels: Pixels) -> None:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    assert read_record(file.getvalue()) is None
    assert read_parameters_text(file.getvalue()) is None


def test_parameters_text_is_in_the_layout_other_tools_read() -> None:
    record = record_of(
        negative_prompt="house", scheduler="dpmpp_2m_karras", guidance_scale=7.0, seed=42
    )
    assert parameters_text(record) == (
        "a red boat on a lake\n"
        "Negative prompt: house\n"
        "Steps: 4, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 42, "
        "Size: 64x64, Model hash: 0123456789, Model: tiny, Version: rockiln 0.1.0"
    )


def test_record_is_the_request_for_this_picture_alone() -> None:
    record = record_of(num_images=4, seed=2**32 - 1, index=2)
    again = parameters_of(record)
    assert (again.seed, again.num_images) == (1, 1)


def test_record_tells_no_place_of_the_host(pixels: Pixels) -> None:
    assert b"secret" not in encode_picture(pixels, "png", record_of()).data
