"""What a ``.gguf`` file holds, read from its header alone and checked like input.

The layout is that of GGUF 2 and 3 (github.com/ggml-org/ggml, docs/gguf.md). The engine reads
tensors by what stands here, so that no second reader of a hostile header is at work.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.quantisation import TENSOR_TYPES, StoredTensor, TensorType

SUFFIX = ".gguf"
# Of any file of weights.
HEADER_MAX_BYTES = 16 * 1024 * 1024
_MAGIC = b"GGUF"
_VERSIONS = {2, 3}
_TENSORS_MAX = 20_000
_KEYS_MAX = 1_000
_NAME_MAX_BYTES = 256
_DIMENSIONS_MAX = 4
_ALIGNMENT_KEY, _ALIGNMENTS = b"general.alignment", {1 << n for n in range(3, 17)}
_STRING, _ARRAY, _UINT32 = 8, 9, 4
# Of a metadata value of each type that has one size.
_VALUE_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def read_gguf_file(path: Path) -> dict[str, StoredTensor]:
    """Name → tensor, of a file whose header and length agree; no tensor is read.

    Raises:
        BrokenModelError: it is truncated, no GGUF, or says what this version does not read.
    """
    file_bytes = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = min(file_bytes, HEADER_MAX_BYTES)
            if file.read(len(_MAGIC)) != _MAGIC:
                raise ValueError("it does not begin as one")
            with mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ) as header:
                return _Header(header).read(file_bytes)
    except struct.error as error:
        raise BrokenModelError(
            f"{path.name} is truncated, or its header is over {HEADER_MAX_BYTES} bytes"
        ) from error
    except ValueError as error:
        raise BrokenModelError(f"{path.name} is no sound GGUF file: {error}") from error


class _Header:
    """A place in the header; every read moves it on. ``struct.error`` past the end."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._place = len(_MAGIC)

    def read(self, file_bytes: int) -> dict[str, StoredTensor]:
        version = self._number("<I")
        if version not in _VERSIONS:
            raise ValueError(f"version {version} is not read")
        tensors, keys = self._number("<Q"), self._number("<Q")
        if tensors > _TENSORS_MAX or keys > _KEYS_MAX:
            raise ValueError(f"{tensors} tensors and {keys} keys are too many")
        alignment = 32
        for _ in range(keys):
            name, kind = self._text(), self._number("<I")
            if name == _ALIGNMENT_KEY and kind == _UINT32:
                alignment = self._number("<I")
            else:
                self._skip_value(kind)
        if alignment not in _ALIGNMENTS:
            raise ValueError(f"an alignment of {alignment}")
        entries = [self._tensor() for _ in range(tensors)]
        start = _up(self._place, alignment)
        found = {
            name: StoredTensor(shape, kind, start + offset) for name, shape, kind, offset in entries
        }
        if len(found) != tensors or not tensors:
            raise ValueError("a name stands twice, or there is none")
        _check_places(found, start, alignment, file_bytes)
        return found

    def _tensor(self) -> tuple[str, tuple[int, ...], TensorType, int]:
        name = self._text().decode(errors="replace")
        dimensions = self._number("<I")
        if not 1 <= dimensions <= _DIMENSIONS_MAX:
            raise ValueError(f"{name!r} has {dimensions} dimensions")
        shape = tuple(self._number("<Q") for _ in range(dimensions))[::-1]
        number, offset = self._number("<I"), self._number("<Q")
        kind = TENSOR_TYPES.get(number)
        if kind is None:
            names = ", ".join(each.name for each in TENSOR_TYPES.values())
            raise ValueError(f"{name!r} is of type {number}; read are {names}")
        if 0 in shape or shape[-1] % kind.block:
            raise ValueError(f"{name!r}: rows of {shape[-1]} are no blocks of {kind.name}")
        return name, shape, kind, offset

    def _skip_value(self, kind: int) -> None:
        if kind == _STRING:
            self._move(self._number("<Q"))
        elif kind == _ARRAY:
            inner, count = self._number("<I"), self._number("<Q")
            if inner == _STRING:
                for _ in range(count):
                    self._move(self._number("<Q"))
            elif inner in _VALUE_BYTES:
                self._move(count * _VALUE_BYTES[inner])
            else:
                raise ValueError(f"a list of values of type {inner}")
        elif kind in _VALUE_BYTES:
            self._move(_VALUE_BYTES[kind])
        else:
            raise ValueError(f"a value of type {kind}")

    def _text(self) -> bytes:
        length = self._number("<Q")
        if length > _NAME_MAX_BYTES:
            raise ValueError(f"a name of {length} bytes")
        start = self._place
        self._move(length)
        return bytes(self._content[start : self._place])

    def _number(self, form: str) -> int:
        (number,) = struct.unpack_from(form, self._content, self._place)
        self._place += struct.calcsize(form)
        return int(number)

    def _move(self, length: int) -> None:
        self._place += length
        if self._place > len(self._content):
            raise struct.error("past the end")


def _check_places(
    tensors: dict[str, StoredTensor], start: int, alignment: int, file_bytes: int
) -> None:
    """Raises ValueError where tensors overlap, leave a hole, or are not what the file holds."""
    place = start
    for name, tensor in sorted(tensors.items(), key=lambda each: each[1].offset):
        if tensor.offset != place:
            raise ValueError(f"tensors overlap or leave a hole before {name[:100]!r}")
        place = _up(tensor.offset + tensor.held_bytes, alignment)
        end = tensor.offset + tensor.held_bytes
    if not end <= file_bytes <= place:
        raise ValueError(f"truncated or padded: {file_bytes} bytes, its header says {end}")


def _up(place: int, alignment: int) -> int:
    return -(-place // alignment) * alignment
