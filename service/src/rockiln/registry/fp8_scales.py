"""The scales of weights in fp8: a number beside each matrix, as ComfyUI's files have it.

Left out, they make weights a thousand times too large (leejet/stable-diffusion.cpp#1898).
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterable
from typing import BinaryIO

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.quantisation import FLOAT8
from rockiln.registry.safetensors_file import WeightsFile

_SCALES = (".scale_weight", ".weight_scale")
# For products in fp8, which are not made here.
_UNUSED = (".scale_input", ".input_scale")
# That there are scales: one tensor of the older files; of the newer, one for each layer, in JSON.
_MARK = re.compile(r"(model\.diffusion_model\.)?scaled_fp8")
_FORMAT, _FORMAT_MAX_BYTES = ".comfy_quant", 4096
_FORMAT_NAME, _FORMAT_KEYS = "float8_e4m3fn", {"format", "full_precision_matrix_mult"}
_OF_BLOCKS = re.compile(r".+\.weight_scale_\w+")
_NUMBERS = {"F32": "<f", "F16": "<e"}
# Beyond them float16 holds none of the weights.
_LEAST, _MOST = 1e-10, 1e3
_FLOAT8 = FLOAT8.name.upper()
_SHOWN_NAME_CHARS = 100


def is_beside_weights(name: str) -> bool:
    """Whether a tensor only says something of others."""
    return bool(_MARK.fullmatch(name)) or name.endswith((*_SCALES, *_UNUSED, _FORMAT))


def read_scales(file: WeightsFile, names: Iterable[str]) -> dict[str, float]:
    """Weight → what it is to be multiplied by.

    Args:
        names: of the tensors that are looked at.

    Raises:
        BrokenModelError: one is no sound number, stands beside nothing in fp8, or is of another
            kind; or a weight lacks it where others have it.
    """
    named = list(names)
    found: dict[str, float] = {}
    with file.path.open("rb") as content:
        for name in named:
            wrong = ""
            if _OF_BLOCKS.fullmatch(name):
                wrong = f"is a scale of another kind; read are {' and '.join(_SCALES)}"
            elif name.endswith(_FORMAT):
                wrong = _wrong_format(file, content, name)
            elif name.endswith(_SCALES):
                weight = f"{name.rpartition('.')[0]}.weight"
                if file.dtypes.get(weight) != _FLOAT8 or weight in found:
                    wrong = "stands beside no weight in fp8 of its own"
                elif file.dtypes[name] not in _NUMBERS or math.prod(file.shapes[name]) != 1:
                    wrong = f"is not one number in {' or '.join(_NUMBERS)}"
                else:
                    (found[weight],) = struct.unpack(
                        _NUMBERS[file.dtypes[name]], _bytes(file, content, name)
                    )
                    if not _LEAST <= found[weight] <= _MOST:
                        wrong = f"is {found[weight]:g}, which is no scale"
            if wrong:
                raise BrokenModelError(f"{file.path.name}: {name[:_SHOWN_NAME_CHARS]!r} {wrong}")
    if found or any(map(is_beside_weights, named)):
        _check_all(file, named, found)
    return found


def _check_all(file: WeightsFile, names: list[str], scales: dict[str, float]) -> None:
    for name in names:
        is_matrix = len(file.shapes[name]) == 2  # noqa: PLR2004 (vectors never have one)
        if file.dtypes[name] == _FLOAT8 and is_matrix and name not in scales:
            raise BrokenModelError(
                f"{file.path.name}: {name[:_SHOWN_NAME_CHARS]!r} lacks the scale that the others "
                "have"
            )


def _wrong_format(file: WeightsFile, content: BinaryIO, name: str) -> str:
    """What is wrong with what a layer says of itself; empty if nothing is."""
    if file.dtypes[name] != "U8" or math.prod(file.shapes[name]) > _FORMAT_MAX_BYTES:
        return "is no format"
    try:
        said = json.loads(_bytes(file, content, name))
    except (ValueError, RecursionError):
        return "is no JSON"
    if (
        not isinstance(said, dict)
        or said.get("format") != _FORMAT_NAME
        or said.keys() - _FORMAT_KEYS
    ):
        return f"says {str(said)[:_SHOWN_NAME_CHARS]}; only {_FORMAT_NAME} is read"
    return ""


def _bytes(file: WeightsFile, content: BinaryIO, name: str) -> bytes:
    content.seek(file.offsets[name])
    return content.read(file.tensor_bytes(name))
