"""Transformers and T5 in one file, and layers whose weights are held in few bits.

The layers are diffusers' own for GGUF: their weights come back to the dtype of the work right
before each forward, in plain torch, so that no kernel of any vendor is needed. diffusers' loader
for such files wants the accelerate package, which is not in the locks, and would read a header that
the registry has not seen; so tensors are put in place here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter, dequantize_gguf_tensor
from torch import nn
from transformers import PreTrainedModel

from rockiln.domain.quantisation import AT_LOAD, FLOAT8, TYPE_BY_NAME, StoredTensor, TensorType
from rockiln.registry.json_file import read_json
from rockiln.registry.quantised_weights import rounded_at_load
from rockiln.registry.transformer_file import stored_transformer
from rockiln.registry.transformer_names import transformer_tensors

_PLAIN = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
_Q8_MAX, _SCALE_BYTES = 127, 2
# As many as stay in a processor's cache: several times faster than a whole layer at once.
_CHUNK_BLOCKS = 1 << 14


class QuantisedLinear(GGUFLinear):  # type: ignore[misc] # diffusers has no types
    """A linear layer whose ``weight`` is bytes.

    They are seen as int8, which is what transformers' T5 takes for weights that are not to be
    cast to. Its layers in float32 get their input in float16.
    """

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.forward_native(inputs.to(self.compute_dtype))
        return output


class Float8Linear(QuantisedLinear):
    """Likewise, of fp8. ``scale`` is what its numbers are multiplied by."""

    scale = 1.0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        dtype = self.compute_dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        weight = _from_float8(self.weight, dtype, self.scale)
        return nn.functional.linear(inputs.to(dtype), weight, bias)


def layer_shape(layer: nn.Module) -> tuple[int, ...]:
    """Of the numbers that a layer's weights stand for."""
    weight: Any = layer.weight
    return tuple(weight.quant_shape if isinstance(weight, GGUFParameter) else weight.shape)


def round_module(module: nn.Module) -> nn.Module:
    """The module with its layers rounded to ``q8_0``; each one's weights go as it is done."""
    for name in [name for name, _ in _linear_layers(module)]:
        weight: Any = module.get_submodule(name).weight
        if rounded_at_load(f"{name}.weight", tuple(weight.shape)):
            held = _parameter(round_to_q8(weight), TYPE_BY_NAME[AT_LOAD])
            _hold(module, name, held, weight.dtype)
    return module


def round_to_q8(weight: torch.Tensor) -> torch.Tensor:
    """[out, in] → bytes [out, in / 32 * 34], as ``gguf.quants`` rounds.

    A scale in float16 before 32 numbers of int8; halves are rounded away from zero.
    """
    blocks = weight.detach().reshape(-1, TYPE_BY_NAME[AT_LOAD].block)
    held = blocks.new_empty((len(blocks), TYPE_BY_NAME[AT_LOAD].block_bytes), dtype=torch.int8)
    for given, found in zip(
        torch.split(blocks, _CHUNK_BLOCKS), torch.split(held, _CHUNK_BLOCKS), strict=True
    ):
        numbers = given.to(torch.float32, copy=True)
        least, most = numbers.aminmax(dim=1, keepdim=True)
        scale = torch.maximum(most.abs(), least.abs()) / _Q8_MAX
        found[:, :_SCALE_BYTES] = scale.half().view(torch.int8)
        numbers *= torch.where(scale == 0, 0, 1 / scale)
        # The cast to int8 drops what is behind the point.
        numbers += torch.copysign(numbers.new_tensor(0.5), numbers)
        found[:, _SCALE_BYTES:] = numbers
    return held.reshape(weight.shape[0], -1)


def read_transformer(
    kind: Any, path: Path, folder: Path, family: str, dtype: torch.dtype
) -> tuple[Any, dict[str, Any]]:
    """An instance of ``kind`` with the config in ``folder``, and which weights it lacks.

    Raises:
        BrokenModelError: the file is unsound or of another shape.
    """
    held = stored_transformer(path, folder, family)
    module = _empty(kind, folder)
    content = np.memmap(path, mode="c")
    layers = dict(_linear_layers(module))
    state: dict[str, torch.Tensor] = {}
    bytes_of: dict[str, tuple[nn.Parameter, float]] = {}
    for named in transformer_tensors(read_json(folder / "config.json"), family):
        tensor = held[named.original]
        rows = _rows(content, tensor, named.shape)
        if named.swapped:
            rows = torch.cat(rows.chunk(2)[::-1])
        for name, part in zip(
            (name for name, _ in named.parts),
            torch.split(rows, [shape[0] for _, shape in named.parts]),
            strict=True,
        ):
            layer, own = name.removesuffix(".weight"), _dtype_of(kind, name, dtype)
            if tensor.quantised and layer in layers:
                bytes_of[layer] = _parameter(part.clone(), tensor.type), tensor.scale
            elif tensor.type is FLOAT8:
                state[name] = _from_float8(part, own, tensor.scale)
            elif tensor.quantised:
                state[name] = dequantize_gguf_tensor(_parameter(part, tensor.type)).to(own)
            else:
                state[name] = part.to(own, copy=True)
    module.load_state_dict(state, strict=False, assign=True)
    for layer, (weight, scale) in bytes_of.items():
        _hold(module, layer, weight, _dtype_of(kind, layer, dtype), scale)
    if issubclass(kind, PreTrainedModel):
        module.tie_weights()
    missing = [name for name, tensor in module.named_parameters() if tensor.is_meta]
    return module, {"missing_keys": missing, "mismatched_keys": ()}


def _empty(kind: Any, folder: Path) -> Any:
    with torch.device("meta"):
        if issubclass(kind, PreTrainedModel):
            return kind(kind.config_class.from_pretrained(folder, local_files_only=True))
        return kind.from_config(kind.load_config(folder, local_files_only=True))


def _dtype_of(kind: Any, name: str, dtype: torch.dtype) -> torch.dtype:
    """Of what is no bytes: T5 has layers that overflow in float16."""
    wide = getattr(kind, "_keep_in_fp32_modules", None) or ()
    overflows = issubclass(kind, PreTrainedModel) and not set(wide).isdisjoint(name.split("."))
    return torch.float32 if overflows and dtype is torch.float16 else dtype


def _rows(content: Any, tensor: StoredTensor, shape: tuple[int, ...]) -> torch.Tensor:
    """[rows, …] as in the file: numbers, or bytes where they are quantised."""
    held = torch.from_numpy(content[tensor.offset : tensor.offset + tensor.held_bytes])
    if tensor.type is FLOAT8:
        return held.view(torch.int8).reshape(shape)
    if tensor.quantised:
        return held.view(torch.int8).reshape(shape[0], -1)
    return held.view(_PLAIN[tensor.type.name]).reshape(shape)


def _linear_layers(module: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    return ((name, layer) for name, layer in module.named_modules() if isinstance(layer, nn.Linear))


def _from_float8(held: torch.Tensor, dtype: torch.dtype, scale: float) -> torch.Tensor:
    numbers = held.view(torch.float8_e4m3fn).to(dtype)
    return numbers if scale == 1 else numbers.mul_(scale)


def _parameter(held: torch.Tensor, kind: TensorType) -> nn.Parameter:
    if kind is FLOAT8:
        return nn.Parameter(held, requires_grad=False)
    made: nn.Parameter = GGUFParameter(held, quant_type=gguf.GGMLQuantizationType(kind.number))
    return made


def _hold(
    module: nn.Module, name: str, weight: nn.Parameter, dtype: torch.dtype, scale: float = 1.0
) -> None:
    """Puts a layer of bytes in the place of a plain one; it computes in ``dtype``."""
    plain = module.get_submodule(name)
    made = QuantisedLinear if isinstance(weight, GGUFParameter) else Float8Linear
    with torch.device("meta"):
        layer = made(
            plain.in_features, plain.out_features, plain.bias is not None, compute_dtype=dtype
        )
    layer.weight, layer.bias = weight, plain.bias
    if scale != 1:
        layer.scale = scale
    parent, _, own = name.rpartition(".")
    setattr(module.get_submodule(parent), own, layer)
