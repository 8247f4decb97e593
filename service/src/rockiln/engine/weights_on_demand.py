"""Weights that come to the device for one forward of their module and leave it again.

diffusers' own group offloading needs the accelerate package, and without streams it copies
unchanged weights back to the host after each forward. Here the host's copy stays and is used again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import nn

Granularity = Literal["block", "layer"]


class WeightsOnDemand:
    """Hooks on the parts of one module; the module itself has to be in host memory.

    Attributes:
        groups: parts whose weights come and go together.
    """

    def __init__(self, module: nn.Module, device: torch.device, granularity: Granularity) -> None:
        self.groups = list(_groups(module, granularity, set()))
        self._device = device
        self._at_home: dict[nn.Module, list[tuple[Any, torch.Tensor]]] = {}
        for group, whole in self.groups:
            group.register_forward_pre_hook(self._bring(whole=whole))
            group.register_forward_hook(self._send_home, always_call=True)

    def _bring(self, *, whole: bool) -> Any:
        def bring(group: nn.Module, _: Any) -> None:
            tensors = [*group.parameters(recurse=whole), *group.buffers(recurse=whole)]
            self._at_home[group] = [(tensor, tensor.data) for tensor in tensors]
            for tensor in tensors:
                tensor.data = tensor.data.to(self._device, copy=True)

        return bring

    def _send_home(self, group: nn.Module, _: Any, __: Any) -> None:
        for tensor, at_home in self._at_home.pop(group, ()):
            tensor.data = at_home


def _groups(
    module: nn.Module, granularity: Granularity, seen: set[nn.Module]
) -> Iterator[tuple[nn.Module, bool]]:
    """Parts of ``module`` and whether all below them belongs to the part.

    A block is the innermost module that calls itself one: a residual or a transformer block.
    What is in no block, and each layer where that is asked, comes by itself. A part that is there
    under two names is one.
    """
    if module in seen:
        return
    seen.add(module)
    if granularity == "block" and _is_innermost_block(module):
        yield module, True
        return
    if any(True for _ in module.parameters(recurse=False)) or any(
        True for _ in module.buffers(recurse=False)
    ):
        yield module, False
    for child in module.children():
        yield from _groups(child, granularity, seen)


def _is_innermost_block(module: nn.Module) -> bool:
    def named_block(part: nn.Module) -> bool:
        return "Block" in type(part).__name__

    return named_block(module) and not any(
        named_block(part) for part in module.modules() if part is not module
    )
