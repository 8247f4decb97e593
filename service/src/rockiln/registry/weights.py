"""The weights of a component: which files they are, and what those hold by their headers."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.quantisation import QuantisedWeights
from rockiln.registry.gguf_file import SUFFIX as GGUF_SUFFIX
from rockiln.registry.json_file import read_json
from rockiln.registry.layouts import FamilyLayout
from rockiln.registry.quantised_weights import held_quantised
from rockiln.registry.safetensors_file import read_weights_file_of
from rockiln.registry.transformer_file import COMPONENT, stored_transformer
from rockiln.registry.transformer_names import T5, diffusers_shapes, transformer_tensors


@dataclass(frozen=True)
class ComponentWeights:
    """The weights of one component: a file, or the shards that an index names.

    Attributes:
        parameters: numbers that stay in memory.
        variant: as in the files' names, such as "fp16"; None for full precision.
        files: all of them, where the names in them are the module's own.
        file: where it is one file under the original names.
        family: whose names those are.
        quantised: of what that file holds in few bits.
        rounded: its matrices are rounded at load.
    """

    folder: Path
    variant: str | None
    file_bytes: int
    parameters: int
    files: tuple[Path, ...] = ()
    file: Path | None = None
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


def transformer_component(path: Path, folder: Path, family: str) -> ComponentWeights:
    """A transformer, or T5, in one file, for the config in ``folder``.

    Raises:
        BrokenModelError: the file is unsound or of another shape.
    """
    held = stored_transformer(path, folder, family)
    tensors = held.values()
    named = transformer_tensors(read_json(folder / "config.json"), family)
    return ComponentWeights(
        folder,
        None,
        sum(tensor.held_bytes for tensor in tensors),
        sum(tensor.numbers for tensor in tensors),
        file=path,
        family=family,
        quantised=held_quantised(held[each.original] for each in named if not each.table),
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
    gguf = None if names else _gguf_file(folder)
    if gguf is not None:
        config = read_json(folder / "config.json")
        return diffusers_shapes(transformer_tensors(config, _held_family(gguf, family)))
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
                files=tuple(file.path for file in files),
            )
    gguf = _gguf_file(folder)
    if gguf is not None:
        return transformer_component(gguf, folder, _held_family(gguf, family))
    raise BrokenModelError(f"{folder.name}/{stem}.safetensors is missing")


def _gguf_file(folder: Path) -> Path | None:
    """Raises BrokenModelError where there is more than one."""
    files = sorted(folder.glob(f"*{GGUF_SUFFIX}"))
    if len(files) > 1:
        raise BrokenModelError(f"{folder.name} has {len(files)} files of GGUF: which one is meant?")
    return files[0] if files else None


def _held_family(gguf: Path, family: str) -> str:
    """Whose names a component's file has. Raises BrokenModelError where it is none that is read."""
    folder = gguf.parent
    if folder.name == COMPONENT:
        return family
    if read_json(folder / "config.json").get("model_type") != T5:
        raise BrokenModelError(
            f"{folder.name}/{gguf.name}: GGUF is read for transformers and for T5 only"
        )
    return T5


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
