"""What ``.safetensors`` files hold, read from their headers alone."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.quantisation import QuantisedWeights
from rockiln.registry import gguf_weights
from rockiln.registry.gguf_file import HEADER_MAX_BYTES
from rockiln.registry.gguf_file import SUFFIX as GGUF_SUFFIX
from rockiln.registry.json_file import read_json
from rockiln.registry.layouts import FamilyLayout
from rockiln.registry.transformer_names import diffusers_shapes, transformer_tensors

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
    """

    path: Path
    file_bytes: int
    parameters: int
    foreign_dtypes: tuple[str, ...] = ()
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)

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
    return WeightsFile(path, file_bytes, parameters, tuple(sorted(foreign)), shapes, dtypes)


def read_weights_file_of(place: str, path: Path) -> WeightsFile:
    """``read_weights_file`` whose complaints name the folder too."""
    try:
        return read_weights_file(path)
    except BrokenModelError as error:
        raise BrokenModelError(f"{place}/{error.detail}") from error


@dataclass(frozen=True)
class ComponentWeights:
    """The weights of one component: a file, or the shards that an index names.

    Attributes:
        parameters: numbers that stay in memory.
        variant: as in the files' names, such as "fp16"; None for full precision.
        gguf: the file, where it is one of GGUF.
        family: whose names that one has.
        quantised: of what that one holds in few bits.
        rounded: its matrices are rounded at load.
    """

    folder: Path
    variant: str | None
    file_bytes: int
    parameters: int
    gguf: Path | None = None
    family: str = ""
    quantised: QuantisedWeights | None = None
    rounded: bool = False


def component_weights(folder: Path, layout: FamilyLayout) -> dict[str, ComponentWeights]:
    """The weights that are loaded for each component: full precision, else the fp16 variant.

    Raises:
        BrokenModelError: a component has neither, or a file is not sound.
    """
    return {
        component: weights_in(folder / component, stem, layout.name, layout.left_out.get(component))
        for component, (_, _, stem) in layout.weighted_in(folder).items()
    }


def gguf_component(path: Path, folder: Path, family: str) -> ComponentWeights:
    """A transformer in one file, for the config in ``folder``.

    Raises:
        BrokenModelError: the file is unsound or of another shape.
    """
    tensors = gguf_weights.gguf_tensors(path, folder, family).values()
    return ComponentWeights(
        folder,
        None,
        path.stat().st_size,
        sum(tensor.numbers for tensor in tensors),
        gguf=path,
        family=family,
        quantised=gguf_weights.held_quantised(tensors),
    )


def component_shapes(folder: Path, layout: FamilyLayout) -> dict[str, dict[str, tuple[int, ...]]]:
    """The shape of each tensor of each component that stays in memory, from the headers.

    Raises:
        BrokenModelError: as ``component_weights``.
    """
    return {
        component: _kept(
            shapes_in(folder / component, stem, layout.name), layout.left_out.get(component)
        )
        for component, (_, _, stem) in layout.weighted_in(folder).items()
    }


def shapes_in(folder: Path, stem: str, family: str = "") -> dict[str, tuple[int, ...]]:
    """Of one component. Raises BrokenModelError where a file is not sound."""
    names = _weights_names(folder, stem, None) or _weights_names(folder, stem, "fp16")
    if not names and _gguf_file(folder) is not None:
        config = read_json(folder / "config.json")
        return diffusers_shapes(transformer_tensors(config, family))
    shapes: dict[str, tuple[int, ...]] = {}
    for name in names:
        shapes |= read_weights_file_of(folder.name, folder / name).shapes
    return shapes


def weights_in(
    folder: Path, stem: str, family: str = "", left_out: str | None = None
) -> ComponentWeights:
    """Of one component. Raises BrokenModelError where it has none, or a file is not sound.

    Args:
        left_out: tensors, by a pattern, that do not stay in memory.
    """
    for variant in (None, "fp16"):
        names = _weights_names(folder, stem, variant)
        if names:
            files = [read_weights_file_of(folder.name, folder / name) for name in names]
            for file in files:
                if file.foreign_dtypes:
                    foreign = ", ".join(file.foreign_dtypes)
                    raise BrokenModelError(
                        f"{folder.name}/{file.path.name} has weights of {foreign}"
                    )
            return ComponentWeights(
                folder,
                variant,
                sum(file.file_bytes for file in files),
                sum(
                    math.prod(shape)
                    for file in files
                    for shape in _kept(file.shapes, left_out).values()
                ),
            )
    gguf = _gguf_file(folder)
    if gguf is not None:
        if folder.name != gguf_weights.COMPONENT:
            raise BrokenModelError(f"{folder.name}/{gguf.name}: GGUF is read for transformers only")
        return gguf_component(gguf, folder, family)
    raise BrokenModelError(f"{folder.name}/{stem}.safetensors is missing")


def _gguf_file(folder: Path) -> Path | None:
    """Raises BrokenModelError where there is more than one."""
    files = sorted(folder.glob(f"*{GGUF_SUFFIX}"))
    if len(files) > 1:
        raise BrokenModelError(f"{folder.name} has {len(files)} files of GGUF: which one is meant?")
    return files[0] if files else None


def _kept(shapes: dict[str, tuple[int, ...]], left_out: str | None) -> dict[str, tuple[int, ...]]:
    """Without the tensors of a part that is not kept in memory."""
    if left_out is None:
        return shapes
    return {name: shape for name, shape in shapes.items() if not re.fullmatch(left_out, name)}


def _weights_names(folder: Path, stem: str, variant: str | None) -> list[str]:
    """The files of a variant; none if the folder does not have it."""
    mark = "" if variant is None else f".{variant}"
    single = f"{stem}{mark}.safetensors"
    if (folder / single).is_file():
        return [single]
    # diffusers and transformers put the variant at different places of the index's name.
    for name in (f"{stem}.safetensors.index{mark}.json", f"{single}.index.json"):
        if (folder / name).is_file():
            return _shards(folder, name, stem)
    return []


def _shards(folder: Path, index_name: str, stem: str) -> list[str]:
    """Raises BrokenModelError where the index names anything but shards beside it."""
    weight_map = read_json(folder / index_name).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BrokenModelError(f"{folder.name}/{index_name} has no weight_map")
    shape = re.compile(rf"{re.escape(stem)}(\.fp16)?-\d{{5}}-of-\d{{5}}(\.fp16)?\.safetensors")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if shape.fullmatch(name) is None:
            raise BrokenModelError(f"{folder.name}/{index_name} names {name!r}, which is no shard")
        if not (folder / name).is_file():
            raise BrokenModelError(f"{folder.name}/{name} is missing")
    return names


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
