"""Weights that come to the device for one forward of their module and leave it again.

diffusers' own group offloading needs the accelerate package, and without streams it copies
unchanged weights back to the host after each forward.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import nn

from rockiln.engine.loans import Loan, Staging, span_bytes, weights_of

Granularity = Literal["block", "layer"]


class WeightsOnDemand:
    """Hooks on the parts of one module; the module itself has to be in host memory.

    A table of tokens stays at home and is read there: of up to a gigabyte a prompt needs a few
    hundred rows.

    Attributes:
        groups: parts whose weights come and go together, and whether all below them does.
        most_bytes: of what is on the device at once.
    """

    def __init__(
        self, module: nn.Module, device: torch.device, staging: Staging, granularity: Granularity
    ) -> None:
        parts = dict(_parts(module, granularity, set()))
        self.groups = {
            part: whole for part, whole in parts.items() if not isinstance(part, nn.Embedding)
        }
        self.most_bytes = self._most_bytes(module)
        self._device, self._staging = device, staging
        self._loans: dict[nn.Module, tuple[int, Loan]] = {}
        staging.hold(self.most_bytes)
        for part in parts:
            if part in self.groups:
                part.register_forward_pre_hook(self._bring)
                part.register_forward_hook(self._send_home, always_call=True)
            else:
                part.register_forward_pre_hook(_ids_to_table)
                part.register_forward_hook(self._rows_to_device)

    def _bring(self, group: nn.Module, _: Any) -> None:
        loan = Loan()
        self._loans[group] = self._staging.taken, loan  # also for when the next fails
        loan.begin(weights_of(group, whole=self.groups[group]), self._staging.put)

    def _send_home(self, group: nn.Module, _: Any, __: Any) -> None:
        if group in self._loans:
            self._staging.taken, loan = self._loans.pop(group)
            loan.end()

    def _rows_to_device(self, _: nn.Module, __: Any, rows: torch.Tensor) -> torch.Tensor:
        return rows.to(self._device)

    def _most_bytes(self, part: nn.Module) -> int:
        """A group's weights are there while groups within it work."""
        whole = self.groups.get(part)
        own = 0 if whole is None else sum(map(span_bytes, weights_of(part, whole=whole)))
        return own if whole else own + max(map(self._most_bytes, part.children()), default=0)


def _ids_to_table(table: nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
    return inputs[0].to(next(table.parameters()).device)


def _parts(
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
    if weights_of(module, whole=False):
        yield module, False
    for child in module.children():
        yield from _parts(child, granularity, seen)


def _is_innermost_block(module: nn.Module) -> bool:
    def named_block(part: nn.Module) -> bool:
        return "Block" in type(part).__name__

    return named_block(module) and not any(
        named_block(part) for part in module.modules() if part is not module
    )
