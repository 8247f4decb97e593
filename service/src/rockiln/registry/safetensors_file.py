"""What a ``.safetensors`` file holds, read from its header alone and checked like input."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rockiln.domain.errors import BrokenModelError
from rockiln.registry.gguf_file import HEADER_MAX_BYTES

SUFFIX = ".safetensors"
_LENGTH_BYTES = 8
_ITEM_BYTES = {
    "F64": 8, "I64": 8, "U64": 8,
    "F32": 4, "I32": 4, "U32": 4,
    "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
WEIGHT_DTYPES = {"F64", "F32", "F16", "BF16"}
_COUNTS = ("position_ids", "num_batches_tracked")  # whole numbers by their nature


@dataclass(frozen=True)
class WeightsFile:
    """What a header says.

    Attributes:
        file_bytes: on disk.
        parameters: the count of numbers in all tensors.
        foreign_dtypes: of weights that are not floating point; tables of positions may be.
        shapes, dtypes: of each tensor, by name.
        offsets: where each begins, from the file's start.
    """

    path: Path
    file_bytes: int
    parameters: int
    foreign_dtypes: tuple[str, ...] = ()
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    offsets: dict[str, int] = field(default_factory=dict)

    def tensor_bytes(self, name: str) -> int:
        """Of one tensor, in the file."""
        return math.prod(self.shapes[name]) * _ITEM_BYTES[self.dtypes[name]]


def read_weights_file(path: Path) -> WeightsFile:
    """Checks that header and file agree; reads no tensor.

    Raises:
        BrokenModelError: truncated, not safetensors, or a header over HEADER_MAX_BYTES.
    """
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if header_bytes > HEADER_MAX_BYTES:
            raise BrokenModelError(f"{path.name}: header over {HEADER_MAX_BYTES} bytes")
        header = file.read(header_bytes)
    if file_bytes < _LENGTH_BYTES or len(header) != header_bytes:
        raise BrokenModelError(f"{path.name} is truncated: its header is not all there")
    try:
        entries = json.loads(header)
        entries.pop("__metadata__", None)
        spans = [_span(entry) for entry in entries.values()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BrokenModelError(f"{path.name} is not a safetensors file: {error}") from error
    expected_bytes = _LENGTH_BYTES + header_bytes + _data_bytes(path.name, spans)
    if file_bytes != expected_bytes:
        raise BrokenModelError(
            f"{path.name} is truncated or padded: {file_bytes} bytes, its header says "
            f"{expected_bytes}"
        )
    foreign = {
        entry["dtype"]
        for tensor, entry in entries.items()
        if entry["dtype"] not in WEIGHT_DTYPES and not tensor.endswith(_COUNTS)
    }
    parameters = sum(count for _, _, count in spans)
    shapes = {name: tuple(entry["shape"]) for name, entry in entries.items()}
    dtypes = {name: entry["dtype"] for name, entry in entries.items()}
    start = _LENGTH_BYTES + header_bytes
    offsets = {name: start + entry["data_offsets"][0] for name, entry in entries.items()}
    return WeightsFile(
        path, file_bytes, parameters, tuple(sorted(foreign)), shapes, dtypes, offsets
    )


def read_weights_file_of(place: str, path: Path) -> WeightsFile:
    """``read_weights_file`` whose complaints name the folder too."""
    try:
        return read_weights_file(path)
    except BrokenModelError as error:
        raise BrokenModelError(f"{place}/{error.detail}") from error


def _span(entry: dict[str, Any]) -> tuple[int, int, int]:
    """Start and end of a tensor's bytes, and how many numbers they are."""
    start, end = entry["data_offsets"]
    shape = entry["shape"]
    if any(type(number) is not int or number < 0 for number in (start, end, *shape)):
        raise ValueError("a shape or an offset is no count")
    count = math.prod(shape)
    if end - start != count * _ITEM_BYTES[entry["dtype"]]:
        raise ValueError(f"shape {shape} does not fit offsets {start} to {end}")
    return start, end, count


def _data_bytes(name: str, spans: list[tuple[int, int, int]]) -> int:
    """Length of the data part. Raises BrokenModelError where tensors overlap or leave holes."""
    position = 0
    for start, end, _ in sorted(spans):
        if start != position:
            raise BrokenModelError(f"{name}: tensors overlap or leave a hole at byte {position}")
        position = end
    return position
