"""Any pixels come back from the file bit for bit, through a reader that is not ours."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from rockiln.engine.png import Pixels, encode_png


def read(data: bytes) -> Pixels:
    """By Pillow, which checks each chunk's CRC and the checksum of the pixels."""
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        assert image.mode == "RGB"
        pixels: Pixels = np.asarray(image)
        return pixels


def noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def scene(side: int) -> Pixels:
    """Soft shapes with a little grain, as pictures have."""
    y, x = np.mgrid[0:side, 0:side] / side
    shapes = np.stack([np.sin(7 * x + y), np.cos(5 * y), np.sin(9 * x * y)], axis=2)
    grain = np.random.default_rng(0).normal(0, 2, (side, side, 3))
    picture: Pixels = (127 + 100 * shapes + grain).clip(0, 255).astype(np.uint8)
    return picture


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 7), (7, 1), (2, 3), (3, 2), (5, 5), (67, 129), (256, 256)]
)
def test_every_pixel_comes_back(height: int, width: int) -> None:
    pixels = noise(height, width)
    assert np.array_equal(read(encode_png(pixels, PngInfo())), pixels)


@pytest.mark.parametrize("value", [0, 1, 127, 128, 255])
def test_one_colour_comes_back(value: int) -> None:
    pixels = np.full((33, 65, 3), value, dtype=np.uint8)
    data = encode_png(pixels, PngInfo())
    assert np.array_equal(read(data), pixels)
    assert len(data) < 1000


def test_pixels_need_not_lie_in_order() -> None:
    turned = noise(31, 17).transpose(1, 0, 2)
    assert np.array_equal(read(encode_png(turned, PngInfo())), turned)


def test_equal_pixels_give_equal_bytes() -> None:
    assert len({encode_png(scene(200), PngInfo()) for _ in range(20)}) == 1


@pytest.mark.parametrize("turned", [False, True])
def test_lines_of_either_direction_are_seen(turned: bool) -> None:
    """A picture that only changes sideways, or only downwards, hardly takes any room."""
    lines = np.broadcast_to(noise(1, 256), (256, 256, 3))
    pixels = lines.transpose(1, 0, 2) if turned else lines
    data = encode_png(pixels, PngInfo())
    assert np.array_equal(read(data), pixels)
    assert len(data) < pixels.size / 20


def test_file_is_hardly_larger_than_pillows() -> None:
    pillows = io.BytesIO()
    Image.fromarray(scene(256)).save(pillows, "PNG")
    assert len(encode_png(scene(256), PngInfo())) < 1.1 * len(pillows.getvalue())


def test_texts_stand_before_the_pixels_in_their_order() -> None:
    texts = PngInfo()
    texts.add_text("parameters", "a red boat")
    texts.add_itxt("rockiln", "船")
    data = encode_png(noise(8, 8), texts)
    with Image.open(io.BytesIO(data)) as image:  # before a pixel is read
        assert list(image.info.items()) == [("parameters", "a red boat"), ("rockiln", "船")]
