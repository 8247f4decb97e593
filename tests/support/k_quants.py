"""A plain writer of GGUF's K and IQ4 kinds, which the gguf package reads and does not write.

Scales from the largest and smallest number of each block, values to the nearest step. ggml's own
writer searches for better scales, so errors that are measured with this one are upper estimates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import IQ4_NL

Array = npt.NDArray[Any]
# Of IQ4: closer together near zero.
_LEVELS = np.array(IQ4_NL.kvalues, dtype=np.float32)


def quantise_k(numbers: Array, kind: GGMLQuantizationType) -> Array:
    """[rows, columns] → bytes [rows, …]. ``kind``: one of ``K_KINDS``."""
    block, _ = GGML_QUANT_SIZES[kind]
    blocks = _WRITERS[kind](numbers.astype(np.float32).reshape(-1, block))
    return blocks.reshape(len(numbers), -1)


def _q2(blocks: Array) -> Array:
    values, scales, mins, halves = _between(blocks, parts=16, most=3, scale_most=15)
    return np.hstack([scales | mins << 4, _packed(values, 2, 32), halves])


def _q3(blocks: Array) -> Array:
    values, scales, half = _around_zero(blocks, most=4, scale_most=32)
    scales = (scales + 32).astype(np.uint8)
    packed = _packed(scales & 15, 4, 8), _packed(scales >> 4, 2, 4)
    return np.hstack([_packed(values >> 2, 1, 32), _packed(values & 3, 2, 32), *packed, half])


def _q4(blocks: Array) -> Array:
    values, scales, mins, halves = _between(blocks, parts=8, most=15, scale_most=63)
    return np.hstack([halves, _six_bits(scales, mins), _packed(values, 4, 32)])


def _q5(blocks: Array) -> Array:
    values, scales, mins, halves = _between(blocks, parts=8, most=31, scale_most=63)
    high, low = _packed(values >> 4, 1, 32), _packed(values & 15, 4, 32)
    return np.hstack([halves, _six_bits(scales, mins), high, low])


def _q6(blocks: Array) -> Array:
    values, scales, half = _around_zero(blocks, most=32, scale_most=128)
    low, high = _packed(values & 15, 4, 64), _packed(values >> 4, 2, 32)
    return np.hstack([low, high, scales.astype(np.int8).view(np.uint8), half])


def _iq4_nl(blocks: Array) -> Array:
    whole = _half(_furthest(blocks) / _LEVELS[0])
    return np.hstack([_bytes(whole), _packed(_on_levels(blocks, whole), 4, 16)])


def _iq4_xs(blocks: Array) -> Array:
    given = blocks.reshape(len(blocks), 8, -1)
    scales, whole = _scales(_furthest(given) / _LEVELS[0], most=32)
    values = _on_levels(given, (whole * scales)[..., None])
    scales = (scales + 32).astype(np.uint8)
    packed = _packed(scales >> 4, 2, 1), _packed(scales & 15, 4, 1)
    return np.hstack([_bytes(whole), *packed, _packed(values, 4, 16)])


_WRITERS: dict[GGMLQuantizationType, Callable[[Array], Array]] = {
    GGMLQuantizationType.Q2_K: _q2,
    GGMLQuantizationType.Q3_K: _q3,
    GGMLQuantizationType.Q4_K: _q4,
    GGMLQuantizationType.Q5_K: _q5,
    GGMLQuantizationType.Q6_K: _q6,
    GGMLQuantizationType.IQ4_NL: _iq4_nl,
    GGMLQuantizationType.IQ4_XS: _iq4_xs,
}


K_KINDS = frozenset(_WRITERS)


def _between(
    blocks: Array, *, parts: int, most: int, scale_most: int
) -> tuple[Array, Array, Array, Array]:
    """Steps from each part's smallest number to its largest: number = scale * value - min.

    Returns:
        values [blocks, 256], scales and mins [blocks, parts], the bytes of what those are
        multiplied by, two halves a block.
    """
    given = blocks.reshape(len(blocks), parts, -1)
    least = -np.minimum(given.min(axis=-1), 0)
    step = (np.maximum(given.max(axis=-1), 0) + least) / most
    whole, whole_min = (_half(each.max(axis=-1) / scale_most) for each in (step, least))
    scales, mins = _nearest(step, whole, 0, scale_most), _nearest(least, whole_min, 0, scale_most)
    scale, low = (whole * scales)[..., None], (whole_min * mins)[..., None]
    values = _nearest(given + low, scale, 0, most).reshape(len(blocks), -1)
    halves = np.hstack([_bytes(whole), _bytes(whole_min)])
    return values.astype(np.uint8), scales.astype(np.uint8), mins.astype(np.uint8), halves


def _around_zero(blocks: Array, *, most: int, scale_most: int) -> tuple[Array, Array, Array]:
    """Steps of 16 parts from -most to most - 1: number = scale * (value - most).

    The furthest number, whatever its sign, stands at -most; likewise for the scales.

    Returns:
        values, scales with their sign, and the bytes of what those are multiplied by.
    """
    given = blocks.reshape(len(blocks), 16, -1)
    scales, whole = _scales(_furthest(given) / -most, most=scale_most)
    values = _nearest(given, (whole * scales)[..., None], -most, most - 1) + most
    return values.astype(np.uint8).reshape(len(blocks), -1), scales, _bytes(whole)


def _scales(step: Array, *, most: int) -> tuple[Array, Array]:
    """Of each part from -most to most - 1, and what they are multiplied by."""
    whole = _half(_furthest(step) / -most)
    return _nearest(step, whole, -most, most - 1), whole


def _on_levels(given: Array, scale: Array) -> Array:
    """Which of IQ4's levels is nearest."""
    between = (_LEVELS[1:] + _LEVELS[:-1]) / 2
    return np.searchsorted(between, _steps(given, scale)).astype(np.uint8)


def _furthest(given: Array) -> Array:
    place = np.abs(given).argmax(axis=-1)[..., None]
    found: Array = np.take_along_axis(given, place, axis=-1)[..., 0]
    return found


def _nearest(given: Array, step: Array, least: int, most: int) -> Array:
    found: Array = np.clip(np.rint(_steps(given, step)), least, most)
    return found


def _steps(given: Array, step: Array) -> Array:
    """Zero where there is no step."""
    found: Array = np.divide(given, step, out=np.zeros_like(given), where=step != 0)
    return found


def _half(given: Array) -> Array:
    """[blocks] → [blocks, 1], as float16 has it."""
    found: Array = given.astype(np.float16).astype(np.float32)[:, None]
    return found


def _bytes(whole: Array) -> Array:
    found: Array = whole.astype(np.float16).view(np.uint8)
    return found


def _packed(values: Array, bits: int, stride: int) -> Array:
    """Several to a byte; those that share one stand ``stride`` apart."""
    together = 8 // bits
    shifts = np.arange(together, dtype=np.uint8).reshape(-1, 1) * bits
    given = values.astype(np.uint8).reshape(len(values), -1, together, stride)
    found: Array = np.bitwise_or.reduce(given << shifts, axis=2).reshape(len(values), -1)
    return found


def _six_bits(scales: Array, mins: Array) -> Array:
    """Eight of each in twelve bytes; the upper bits of the last four stand with the first four."""
    first = [each[:, :4] | (each[:, 4:] >> 4) << 6 for each in (scales, mins)]
    return np.hstack([*first, scales[:, 4:] & 15 | (mins[:, 4:] & 15) << 4])
