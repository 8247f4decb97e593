"""A safetensors file is judged by its header alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rockiln.domain.errors import BrokenModelError
from rockiln.registry.gguf_file import HEADER_MAX_BYTES
from rockiln.registry.safetensors_file import read_weights_file


def write(path: Path, header: Any, data: bytes = b"", *, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + text + data)
    return path


def tensor(shape: list[int], start: int, end: int, dtype: str = "F16") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_numbers_are_counted_over_all_tensors(tmp_path: Path) -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "a": tensor([2, 3], 0, 12),
        "b": tensor([], 12, 16, "F32"),
        "none": tensor([0], 16, 16),
    }
    path = write(tmp_path / "w.safetensors", header, bytes(16))
    file = read_weights_file(path)
    assert (file.parameters, file.file_bytes) == (7, path.stat().st_size)


@pytest.mark.parametrize(
    ("header", "data_bytes"),
    [
        (b"not json", 0),
        (b"[]", 0),
        (b"[1, 2]", 0),
        (b"\xff\xff", 0),
        ({"a": "no tensor"}, 0),
        ({"a": {"dtype": "F16", "shape": [1]}}, 2),
        ({"a": tensor([1], 0, 2, "Q4")}, 2),
        ({"a": tensor([2], 0, 2)}, 2),
        ({"a": tensor([-1], 0, -2)}, 0),
        ({"a": {"dtype": "F16", "shape": ["1"], "data_offsets": [0, 2]}}, 2),
        ({"a": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2, 4]}}, 2),
        ({"a": tensor([1], 0, 2), "b": tensor([1], 0, 2)}, 2),
        ({"a": tensor([1], 0, 2), "b": tensor([1], 4, 6)}, 6),
        ({"a": tensor([1], 0, 2)}, 1),
        ({"a": tensor([1], 0, 2)}, 3),
    ],
)
def test_unsound_file_is_refused_by_name(tmp_path: Path, header: Any, data_bytes: int) -> None:
    path = write(tmp_path / "w.safetensors", header, bytes(data_bytes))
    with pytest.raises(BrokenModelError, match=r"w\.safetensors"):
        read_weights_file(path)


@pytest.mark.parametrize("size", [0, 4, 8])
def test_file_that_ends_in_its_header_is_truncated(tmp_path: Path, size: int) -> None:
    path = write(tmp_path / "w.safetensors", {"a": tensor([1], 0, 2)}, bytes(2))
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(BrokenModelError):
        read_weights_file(path)


def test_huge_header_is_refused_unread(tmp_path: Path) -> None:
    path = write(tmp_path / "w.safetensors", b"{}", length=HEADER_MAX_BYTES + 1)
    with pytest.raises(BrokenModelError, match="header over"):
        read_weights_file(path)


def test_pickle_in_disguise_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94")
    with pytest.raises(BrokenModelError):
        read_weights_file(path)
