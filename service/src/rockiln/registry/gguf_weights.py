"""Components whose weights are held in few bits: from a ``.gguf`` file, or rounded at load."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.quantisation import AT_LOAD, TYPE_BY_NAME, QuantisedWeights, TensorType
from rockiln.registry.gguf_file import GgufTensor, read_gguf_file
from rockiln.registry.json_file import read_json
from rockiln.registry.transformer_names import PREFIX, NamedTensor, Shape, transformer_tensors

COMPONENT = "transformer"
# The matrices of repeated blocks: nearly all of a network. Embeddings, tables of positions and the
# ends of a network are small, and errors there count most.
_IN_BLOCK = re.compile(r"(.+\.)?\w*(blocks?|layers)\.\d+\..+\.weight")
_TABLE = re.compile(r".+(relative_attention_bias|embeddings?)\.weight")


def gguf_tensors(path: Path, folder: Path, family: str) -> dict[str, GgufTensor]:
    """Original name → tensor, of a file that holds exactly what the config in ``folder`` takes.

    Raises:
        BrokenModelError: it does not; the detail names the first difference.
    """
    held = {name.removeprefix(PREFIX): each for name, each in read_gguf_file(path).items()}
    wanted = transformer_tensors(read_json(folder / "config.json"), family)
    wrong = _differences(held, wanted)
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise BrokenModelError(
            f"{path.name} is no {family} transformer of this shape: {wrong[0]}{more}"
        )
    return held


def _differences(held: Mapping[str, GgufTensor], wanted: list[NamedTensor]) -> list[str]:
    found = []
    for tensor in wanted:
        there = held.get(tensor.original)
        if there is None:
            found.append(f"{tensor.original} is missing")
        # ggml drops dimensions of 1 in front.
        elif _bare(there.shape) != _bare(tensor.shape):
            found.append(f"{tensor.original} is {list(there.shape)}, not {list(tensor.shape)}")
    known = {tensor.original for tensor in wanted}
    return found + [f"{name[:100]!r} is no part of it" for name in held if name not in known]


def _bare(shape: Shape) -> Shape:
    return _bare(shape[1:]) if len(shape) > 1 and shape[0] == 1 else shape


def held_quantised(tensors: Iterable[GgufTensor]) -> QuantisedWeights | None:
    """What of a file stays in few bits; a matrix alone does. None where nothing does."""
    return _summed(
        [(each.numbers, each.type) for each in tensors if each.quantised and len(each.shape) == 2]  # noqa: PLR2004
    )


def rounded_at_load(name: str, shape: Shape) -> bool:
    """Whether a component's tensor, by diffusers' or transformers' name, is rounded to ``q8_0``."""
    return (
        len(shape) == 2  # noqa: PLR2004 (a matrix)
        and shape[1] % TYPE_BY_NAME[AT_LOAD].block == 0
        and _IN_BLOCK.fullmatch(name) is not None
        and _TABLE.fullmatch(name) is None
    )


def quantisable_parts(
    shapes: Mapping[str, Mapping[str, Shape]],
) -> dict[str, QuantisedWeights]:
    """What the components of these tensors would hold if they were rounded at load.

    A decoder is small, and its rounding would be seen at once.
    """
    kind = TYPE_BY_NAME[AT_LOAD]
    found = {
        component: _summed(
            [
                (math.prod(shape), kind)
                for name, shape in named.items()
                if rounded_at_load(name, shape)
            ]
        )
        for component, named in shapes.items()
        if component != "vae"
    }
    return {name: replace(held, at_load=True) for name, held in found.items() if held is not None}


def _summed(matrices: list[tuple[int, TensorType]]) -> QuantisedWeights | None:
    if not matrices:
        return None
    by_kind: dict[str, int] = {}
    for numbers, kind in matrices:
        by_kind[kind.name] = by_kind.get(kind.name, 0) + numbers
    return QuantisedWeights(
        kind=max(by_kind, key=lambda name: by_kind[name]),
        parameters=sum(by_kind.values()),
        held_bytes=sum(kind.bytes_of(numbers) for numbers, kind in matrices),
        largest_parameters=max(numbers for numbers, _ in matrices),
        workspace_bytes=max(numbers * kind.workspace_bytes for numbers, kind in matrices),
    )
