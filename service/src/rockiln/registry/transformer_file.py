"""A transformer in one file under the original names, ``.gguf`` or ``.safetensors``.

Only the header is read here, and the scales that fp8 may have. The engine reads tensors by that.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from pathlib import Path

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.quantisation import FLOAT8, PLAIN_TYPES, StoredTensor
from rockiln.registry import gguf_file
from rockiln.registry.gguf_file import read_gguf_file
from rockiln.registry.json_file import read_json
from rockiln.registry.safetensors_file import SUFFIX, WeightsFile, read_weights_file
from rockiln.registry.transformer_names import PREFIX, NamedTensor, Shape, transformer_tensors

COMPONENT = "transformer"
# Family → a tensor that each of its transformers has, and no other file that is a model.
_MARKS = {
    "flux": "double_blocks.0.img_attn.qkv.weight",
    "sd3": "joint_blocks.0.x_block.attn.qkv.weight",
}
# What a file has beside it where it is one of a whole model.
_OTHER_PARTS = ("first_stage_model.", "text_encoders.", "vae.")
# ComfyUI's: one number beside a weight in fp8. Left out, they make weights a thousand times too
# large (leejet/stable-diffusion.cpp#1898). Another is for products in fp8; and there is a mark.
_SCALES = (".scale_weight", ".weight_scale")
_UNUSED = (".scale_input", ".input_scale")
_SCALED = "scaled_fp8"
_NUMBER_FORMS = {"F32": "<f", "F16": "<e"}
# Other ways to hold weights in few bits.
_FOREIGN_SCALES = re.compile(r"(.+\.)?(weight_scale_\w+|comfy_quant)")
_TYPES = {each.name.upper(): each for each in (*PLAIN_TYPES.values(), FLOAT8)}
_SHOWN_NAME_CHARS = 100
# Beyond them float16 holds none of the weights.
_SCALE_MIN, _SCALE_MAX = 1e-10, 1e3


def transformer_family(path: Path) -> str | None:
    """Whose transformer a file holds, by one name in it.

    Raises:
        BrokenModelError: the file is unsound.
    """
    if path.suffix == gguf_file.SUFFIX:
        names = set(read_gguf_file(path))
    elif path.suffix.lower() == SUFFIX:
        names = set(read_weights_file(path).shapes)
    else:
        return None
    for family, mark in _MARKS.items():
        if not names.isdisjoint({mark, PREFIX + mark}):
            return family
    return None


def stored_transformer(path: Path, folder: Path, family: str) -> dict[str, StoredTensor]:
    """Original name → tensor, of a file that holds exactly what the config in ``folder`` takes.

    Decoder and text encoders that are in it too are passed over.

    Raises:
        BrokenModelError: it does not; the detail names the first difference.
    """
    held = _read(path)
    wanted = transformer_tensors(read_json(folder / "config.json"), family)
    wrong = _differences(held, wanted)
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise BrokenModelError(
            f"{path.name} is no {family} transformer of this shape: {wrong[0]}{more}"
        )
    return held


def _read(path: Path) -> dict[str, StoredTensor]:
    if path.suffix == gguf_file.SUFFIX:
        held = list(read_gguf_file(path).items())
    else:
        file = read_weights_file(path)
        names = [name for name in file.shapes if not name.startswith(_OTHER_PARTS)]
        if any(map(_FOREIGN_SCALES.fullmatch, names)):
            raise BrokenModelError(
                f"{path.name} has weights in few bits with scales of their own; read is fp8, plain "
                f"or with one number a weight ({', '.join(_SCALES)})"
            )
        scales = _scales(file, names)
        names = [name for name in names if not _beside_weights(name)]
        for name in names:
            if file.dtypes[name] not in _TYPES:
                raise BrokenModelError(
                    f"{path.name}: {name[:_SHOWN_NAME_CHARS]!r} is of {file.dtypes[name]}; read "
                    f"are {', '.join(_TYPES)}"
                )
        held = [
            (
                name,
                StoredTensor(
                    file.shapes[name],
                    _TYPES[file.dtypes[name]],
                    file.offsets[name],
                    scales.get(name, 1.0),
                ),
            )
            for name in names
        ]
    found = {name.removeprefix(PREFIX): tensor for name, tensor in held}
    if len(found) != len(held):
        raise BrokenModelError(f"{path.name}: a name stands twice, with and without {PREFIX!r}")
    return found


def _beside_weights(name: str) -> bool:
    return name.removeprefix(PREFIX) == _SCALED or name.endswith((*_SCALES, *_UNUSED))


def _scales(file: WeightsFile, names: list[str]) -> dict[str, float]:
    """Weight → what it is multiplied by.

    Raises:
        BrokenModelError: one is no sound number, or stands beside nothing in fp8; or a weight
            lacks it in a file that says it has them.
    """
    found: dict[str, float] = {}
    marked = any(name.removeprefix(PREFIX) == _SCALED for name in names)
    with file.path.open("rb") as content:
        for name in filter(lambda each: each.endswith(_SCALES), names):
            weight = f"{name.rpartition('.')[0]}.weight"
            form = _NUMBER_FORMS.get(file.dtypes[name])
            wrong = ""
            if file.dtypes.get(weight) != FLOAT8.name.upper() or weight in found:
                wrong = "stands beside no weight in fp8 of its own"
            elif form is None or math.prod(file.shapes[name]) != 1:
                wrong = f"is not one number in {' or '.join(_NUMBER_FORMS)}"
            else:
                content.seek(file.offsets[name])
                (found[weight],) = struct.unpack(form, content.read(struct.calcsize(form)))
                if not _SCALE_MIN <= found[weight] <= _SCALE_MAX:
                    wrong = f"is {found[weight]:g}, which is no scale"
            if wrong:
                raise BrokenModelError(f"{file.path.name}: {name[:_SHOWN_NAME_CHARS]!r} {wrong}")
    lacking = [
        name
        for name in names
        if file.dtypes[name] == FLOAT8.name.upper()
        and len(file.shapes[name]) == 2  # noqa: PLR2004 (a matrix; a vector never has one)
        and name not in found
    ]
    if (marked or found) and lacking:
        raise BrokenModelError(
            f"{file.path.name}: {lacking[0][:_SHOWN_NAME_CHARS]!r} lacks the scale that the others "
            "have"
        )
    return found


def _differences(held: Mapping[str, StoredTensor], wanted: list[NamedTensor]) -> list[str]:
    found = []
    for tensor in wanted:
        there = held.get(tensor.original)
        if there is None:
            found.append(f"{tensor.original} is missing")
        # ggml drops dimensions of 1 in front.
        elif _bare(there.shape) != _bare(tensor.shape):
            found.append(f"{tensor.original} is {list(there.shape)}, not {list(tensor.shape)}")
    known = {tensor.original for tensor in wanted}
    return found + [
        f"{name[:_SHOWN_NAME_CHARS]!r} is no part of it" for name in held if name not in known
    ]


def _bare(shape: Shape) -> Shape:
    return _bare(shape[1:]) if len(shape) > 1 and shape[0] == 1 else shape
