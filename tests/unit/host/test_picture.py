"""The host judges an upgrade's picture by itself."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import pytest
from ansible_collections.rockiln.host.plugins.module_utils._picture import (
    PictureError,
    findings,
    read_png,
)
from PIL import Image, PngImagePlugin

SIDE = 64


def drawing(x: int, y: int) -> tuple[int, int, int]:
    """A sky, a hill and a sun: areas with edges."""
    if (x - 48) ** 2 + (y - 14) ** 2 < 60:
        return 250, 220, 90
    return (60, 120, 60) if y > 40 + (x - 32) ** 2 / 64 else (120, 160, 40 + 2 * y)


def noise(x: int, y: int) -> tuple[int, int, int]:
    value = (x * 7919 + y * 104729 + x * y * 31) * 2654435761
    return value >> 8 & 255, value >> 16 & 255, value >> 24 & 255


def png(
    paint: Callable[[int, int], tuple[int, int, int]], *, torch: str = "2.9.1+rocm7.2.4"
) -> bytes:
    picture = Image.new("RGB", (SIDE, SIDE))
    picture.putdata([paint(x, y) for y in range(SIDE) for x in range(SIDE)])
    about = PngImagePlugin.PngInfo()
    about.add_itxt("rockiln", json.dumps({"versions": {"torch": torch}}))
    stream = io.BytesIO()
    picture.save(stream, format="png", pnginfo=about)
    return stream.getvalue()


def said(content: bytes, *, side: int = SIDE, torch: str = "2.9.1+rocm7.2.4") -> str:
    return "; ".join(findings(read_png(content), width=side, height=side, torch=torch))


def test_pixels_are_those_that_were_saved() -> None:
    picture = read_png(png(drawing))
    assert picture.rows[50][30:33] == bytes(drawing(10, 50))
    assert picture.record == {"versions": {"torch": "2.9.1+rocm7.2.4"}}


def test_a_drawing_is_a_picture() -> None:
    assert said(png(drawing)) == ""


@pytest.mark.parametrize(
    ("paint", "words"),
    [
        (lambda *_: (0, 0, 0), "black"),
        (lambda *_: (255, 255, 255), "white"),
        (lambda *_: (128, 128, 128), "flat"),
        (noise, "noise"),
    ],
)
def test_what_a_broken_decoder_makes_is_none(
    paint: Callable[[int, int], tuple[int, int, int]], words: str
) -> None:
    assert words in said(png(paint))


def test_size_and_torch_must_be_the_wanted_ones() -> None:
    assert "64x64, asked for 128x128" in said(png(drawing), side=128)
    assert said(png(drawing), torch="2.9.1") == ""
    assert "made with torch 2.13.0+cpu, not 2.9.1" in said(png(drawing, torch="2.13.0+cpu"))


@pytest.mark.parametrize(
    "spoil", [lambda content: content[:-30], lambda content: b"GIF89a" + content, lambda _: b""]
)
def test_a_file_that_is_cut_or_something_else_is_named(spoil: Callable[[bytes], bytes]) -> None:
    with pytest.raises(PictureError):
        read_png(spoil(png(drawing)))
