"""PRIVATE to the collection. Is this a picture? Standard library alone, so that the host can ask.

The image under test must not judge itself: a host reads the PNG without anything of the service.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS_OF_COLOUR_TYPE = {0: 1, 2: 3, 4: 2, 6: 4}
RECORD_KEY = b"rockiln"
# Of 255. A decoder gone wrong gives one colour, black for NaN, or noise; a drawing has areas and
# edges. The bounds are far from both: see the unit tests' measured pictures.
SPREAD_MIN = 4.0
MEAN_MIN, MEAN_MAX = 4.0, 251.0
ROUGHNESS_MAX = 60.0


class PictureError(Exception):
    """The file is no PNG that this reader knows, or damaged."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture; ``rows`` without their filter bytes."""

    width: int
    height: int
    channels: int
    rows: list[bytes]
    record: dict[str, Any]


def read_png(content: bytes) -> Picture:
    """Decode an 8-bit PNG that is not interlaced, and the service's record in it.

    Raises:
        PictureError: it is something else, or a checksum does not fit.
    """
    if not content.startswith(SIGNATURE):
        raise PictureError("it is not a PNG")
    header, data, record = b"", b"", {}
    for name, body in _chunks(content):
        if name == b"IHDR":
            header = body
        elif name == b"IDAT":
            data += body
        elif name in {b"iTXt", b"tEXt"} and body.startswith(RECORD_KEY + b"\0"):
            record = _record(name, body)
    if len(header) != struct.calcsize(">IIBBBBB"):
        raise PictureError("it has no header")
    width, height, depth, colour_type, _, _, interlace = struct.unpack(">IIBBBBB", header)
    if depth != 8 or interlace or colour_type not in CHANNELS_OF_COLOUR_TYPE:  # noqa: PLR2004
        raise PictureError(f"its form is not read here (depth {depth}, colours {colour_type})")
    channels = CHANNELS_OF_COLOUR_TYPE[colour_type]
    try:
        raw = zlib.decompress(data)
    except zlib.error as error:
        raise PictureError(f"its pixels are damaged: {error}") from error
    if len(raw) != height * (width * channels + 1):
        raise PictureError("its pixels are not as many as its header says")
    return Picture(width, height, channels, _unfilter(raw, width * channels, channels), record)


def findings(picture: Picture, *, width: int, height: int, torch: str) -> list[str]:
    """What is wrong with it; empty when nothing is.

    Args:
        torch: the version that the record must name; without a local part any of it will do.
    """
    found = []
    if (picture.width, picture.height) != (width, height):
        found.append(f"it is {picture.width}x{picture.height}, asked for {width}x{height}")
    samples = [value for row in picture.rows for value in row]
    mean = sum(samples) / len(samples)
    spread = (sum((value - mean) ** 2 for value in samples) / len(samples)) ** 0.5
    if not MEAN_MIN <= mean <= MEAN_MAX:
        found.append(f"it is {'black' if mean < MEAN_MIN else 'white'} (mean {mean:.1f} of 255)")
    elif spread < SPREAD_MIN:
        found.append(f"it is flat (spread {spread:.1f} of 255)")
    elif (roughness := _roughness(picture)) > ROUGHNESS_MAX:
        found.append(f"it is noise (neighbours differ by {roughness:.0f} of 255)")
    named = str(picture.record.get("versions", {}).get("torch", ""))
    if torch not in {"", named, named.partition("+")[0]}:
        found.append(f"it was made with torch {named or '(none named)'}, not {torch}")
    return found


def _roughness(picture: Picture) -> float:
    """Mean difference between neighbours in a row."""
    step = picture.channels
    total = sum(
        abs(left - right)
        for row in picture.rows
        for left, right in zip(row[:-step], row[step:], strict=True)
    )
    return total / max(1, (picture.width - 1) * step * picture.height)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = len(SIGNATURE)
    while place + 12 <= len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        body = content[place + 4 : place + 8 + length]
        (checksum,) = struct.unpack(
            ">I", content[place + 8 + length : place + 12 + length] or b"\0" * 4
        )
        if zlib.crc32(body) != checksum:
            raise PictureError("it is cut off or damaged")
        yield body[:4], body[4:]
        place += 12 + length


def _record(name: bytes, body: bytes) -> dict[str, Any]:
    text = body[len(RECORD_KEY) + 1 :]
    if name == b"iTXt":
        compressed, text = text[0], text[2:]
        text = text.split(b"\0", 2)[2]
        text = zlib.decompress(text) if compressed else text
    found = json.loads(text)
    return found if isinstance(found, dict) else {}


def _unfilter(raw: bytes, stride: int, step: int) -> list[bytes]:
    """Undo the five filters of PNG."""
    rows: list[bytes] = []
    above = bytes(stride)
    for start in range(0, len(raw), stride + 1):
        kind, line = raw[start], bytearray(raw[start + 1 : start + 1 + stride])
        for place, value in enumerate(line):
            left = line[place - step] if place >= step else 0
            corner = above[place - step] if place >= step else 0
            line[place] = (value + _predict(kind, left, above[place], corner)) & 0xFF
        above = bytes(line)
        rows.append(above)
    return rows


def _predict(kind: int, left: int, up: int, corner: int) -> int:
    if kind == 0:
        return 0
    if kind in {1, 2}:
        return left if kind == 1 else up
    if kind == 3:  # noqa: PLR2004 (the numbers are the format's)
        return (left + up) // 2
    if kind == 4:  # noqa: PLR2004
        guess = left + up - corner
        return min((left, up, corner), key=lambda value: abs(guess - value))
    raise PictureError(f"it has a filter {kind}")


__all__ = ["Picture", "PictureError", "findings", "read_png"]
