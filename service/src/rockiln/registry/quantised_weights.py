"""Components whose weights are held in few bits: as a file has them, or rounded at load."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from rockiln.domain.quantisation import (
    AT_LOAD,
    TYPE_BY_NAME,
    QuantisedWeights,
    StoredTensor,
    TensorType,
)
from rockiln.registry.transformer_names import Shape

# The matrices of repeated blocks: nearly all of a network. Embeddings, tables of positions and the
# ends of a network are small, and errors there count most.
_IN_BLOCK = re.compile(r"(.+\.)?\w*(blocks?|layers)\.\d+\..+\.weight")
_TABLE = re.compile(r".+(relative_attention_bias|embeddings?)\.weight")


def held_quantised(tensors: Iterable[StoredTensor]) -> QuantisedWeights | None:
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
