"""Bytes that a forward would allocate, with no memory and no device: on torch's meta device."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rockiln.engine.loans import weights_of

# Of CUDA's caching allocator.
_BLOCK_BYTES = 512
_CONVOLUTION = torch.ops.aten.convolution.default
_GROUP_NORM = torch.ops.aten.native_group_norm.default
_PICTURE_DIMENSIONS = 4


class Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what comes to life within it; ``peak_bytes`` is the most there was at once.

    Args:
        modules: whose weights are there already.
    """

    def __init__(self, modules: Iterable[torch.nn.Module]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak_bytes = 0
        self._live_bytes = 0
        self._seen: dict[int, object] = {}
        for module in modules:
            for weight in weights_of(module):
                self._seen[weight.untyped_storage()._cdata] = weight

    def __torch_dispatch__(
        self, function: Any, _types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        order = _order_of_kernel(function, args)
        if order is not None:
            # A copy of the input where it has another order; the meta device knows of none.
            copied = args[0].contiguous(memory_format=order)
            self._count(copied.untyped_storage())
            args = (copied, *args[1:])
        result = function(*args, **(kwargs or {}))
        if order is torch.channels_last:
            result = result.contiguous(memory_format=order)
        for made in tree_leaves(result):
            if isinstance(made, torch.Tensor) and made.device.type == "meta":
                self._count(made.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        key, size = storage._cdata, _in_blocks(storage.nbytes())
        if key in self._seen:
            return
        self._live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self._live_bytes)

        def gone(_: object) -> None:
            self._live_bytes -= size
            del self._seen[key]

        self._seen[key] = weakref.ref(storage, gone)


def _order_of_kernel(function: Any, args: Any) -> torch.memory_format | None:
    """In which a GPU's kernel takes its input and gives its result; None where in any."""
    if function is _GROUP_NORM:
        return torch.contiguous_format
    if function is not _CONVOLUTION or args[1].dim() != _PICTURE_DIMENSIONS:
        return None
    innermost = args[1].is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if innermost else None


def held_bytes(module: torch.nn.Module) -> int:
    """Of a module's parameters and buffers."""
    storages = [each.untyped_storage() for each in weights_of(module)]
    sizes = {storage._cdata: storage.nbytes() for storage in storages}
    return sum(map(_in_blocks, sizes.values()))


def _in_blocks(size: int) -> int:
    return -(-size // _BLOCK_BYTES) * _BLOCK_BYTES


@contextmanager
def fused_attention(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Attention that keeps no scores, as the kernels of a GPU; the meta device would keep them."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", _like_query)
        yield


def _like_query(query: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
    return torch.empty_like(query)
