"""Weights held in few bits: the tensor types of GGUF and fp8, and what each costs. Pure.

Numbers and names are those of ggml (``gguf.GGML_QUANT_SIZES``; a test compares). A layer's weights
are brought back to the dtype of the work right before its forward, so any device can use them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

NONE: Mapping[str, str] = MappingProxyType({})
# What weights of more bits are rounded to here, at load: int8 in blocks of 32 with a scale each.
AtLoad = Literal["q8_0"]
AT_LOAD: AtLoad = "q8_0"


@dataclass(frozen=True)
class TensorType:
    """One type.

    Attributes:
        number: in a GGUF file; -1 where none has it.
        block, block_bytes: so many numbers take so many bytes.
        weight_error: root mean square of what a weight is off, relative to that of the weights;
            measured on normal ones (``service/docs/memory.md``); of K and IQ4 kinds at most, since
            files are made with better writers than the tests'. None: of plain ones.
        workspace_bytes: for each number of a layer while it is brought back to float16.
    """

    name: str
    number: int
    block: int
    block_bytes: int
    weight_error: float | None = None
    workspace_bytes: int = 2

    def bytes_of(self, numbers: int) -> int:
        """Raises ValueError where they are no whole blocks."""
        if numbers % self.block:
            raise ValueError(f"{numbers} numbers are no blocks of {self.block}")
        return numbers // self.block * self.block_bytes


PLAIN_TYPES = {
    each.number: each
    for each in (
        TensorType("f32", 0, 1, 4),
        TensorType("f16", 1, 1, 2),
        TensorType("bf16", 30, 1, 2),
    )
}
QUANTISED_TYPES = {
    each.number: each
    for each in (
        TensorType("q4_0", 2, 32, 18, weight_error=0.086, workspace_bytes=3),
        TensorType("q4_1", 3, 32, 20, weight_error=0.078, workspace_bytes=5),
        TensorType("q5_0", 6, 32, 22, weight_error=0.043, workspace_bytes=10),
        TensorType("q5_1", 7, 32, 24, weight_error=0.038, workspace_bytes=10),
        TensorType("q8_0", 8, 32, 34, weight_error=0.0054),
        TensorType("q2_k", 10, 256, 84, weight_error=0.33, workspace_bytes=6),
        TensorType("q3_k", 11, 256, 110, weight_error=0.155, workspace_bytes=6),
        TensorType("q4_k", 12, 256, 144, weight_error=0.079, workspace_bytes=6),
        TensorType("q5_k", 13, 256, 176, weight_error=0.038, workspace_bytes=8),
        TensorType("q6_k", 14, 256, 210, weight_error=0.0187, workspace_bytes=6),
        TensorType("iq4_nl", 20, 32, 18, weight_error=0.08, workspace_bytes=13),
        TensorType("iq4_xs", 23, 256, 136, weight_error=0.08, workspace_bytes=13),
    )
}
TENSOR_TYPES = PLAIN_TYPES | QUANTISED_TYPES
# Of safetensors, under their name for it: 4 bits of exponent, 3 of fraction. A scale of a whole
# tensor brings its numbers into that range, and makes them no more exact.
FLOAT8 = TensorType("f8_e4m3", -1, 1, 1, weight_error=0.029)
TYPE_BY_NAME = {each.name: each for each in (*TENSOR_TYPES.values(), FLOAT8)}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file.

    Attributes:
        shape: the slowest dimension comes first.
        offset: from the file's start.
        scale: what its numbers are to be multiplied by.
    """

    shape: tuple[int, ...]
    type: TensorType
    offset: int
    scale: float = 1.0

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)

    @property
    def held_bytes(self) -> int:
        return self.type.bytes_of(self.numbers)

    @property
    def quantised(self) -> bool:
        return self.type.number not in PLAIN_TYPES


@dataclass(frozen=True)
class QuantisedWeights:
    """What of one component is held in few bits; the rest is in the dtype of the work.

    Attributes:
        kind: the type of most of it.
        parameters: how many numbers.
        held_bytes: what they take.
        largest_parameters: of the largest layer.
        workspace_bytes: to bring the layer that needs most back to float16.
        at_load: rounded then, from a file with more bits.
    """

    kind: str
    parameters: int
    held_bytes: int
    largest_parameters: int
    workspace_bytes: int
    at_load: bool = False

    def as_dict(self) -> dict[str, Any]:
        """What is told of it: in model lists, in the record of a picture."""
        error = TYPE_BY_NAME[self.kind].weight_error
        return {"kind": self.kind, "exact": False, "weight_error": error}
