"""A transformer in one file under the original names, ``.gguf`` or ``.safetensors``.

Only the header is read here, and the scales that fp8 may have. The engine reads tensors by that.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.quantisation import FLOAT8, PLAIN_TYPES, StoredTensor
from rockiln.registry import gguf_file
from rockiln.registry.fp8_scales import is_beside_weights, read_scales
from rockiln.registry.gguf_file import read_gguf_file
from rockiln.registry.json_file import read_json
from rockiln.registry.safetensors_file import SUFFIX, read_weights_file
from rockiln.registry.transformer_names import PREFIX, NamedTensor, Shape, transformer_tensors

COMPONENT = "transformer"
# Family → a tensor that each of its transformers has, and no other file that is a model.
_MARKS = {
    "flux": "double_blocks.0.img_attn.qkv.weight",
    "sd3": "joint_blocks.0.x_block.attn.qkv.weight",
}
# What a file has beside it where it is one of a whole model.
_OTHER_PARTS = ("first_stage_model.", "text_encoders.", "vae.")
_TYPES = {each.name.upper(): each for each in (*PLAIN_TYPES.values(), FLOAT8)}
_SHOWN_NAME_CHARS = 100


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
        scales = read_scales(file, names)
        names = [name for name in names if not is_beside_weights(name)]
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
