"""AdamW with gradient clipping and a moving average, on one flat buffer.

A small network's step is bound by kernel launches, not by arithmetic: an optimiser that walks over
hundreds of small tensors costs more than the network. Here every parameter is a view into one
buffer, a step is a dozen launches whatever the network, all of it can be captured in a CUDA graph,
and the whole state is four tensors in a checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def _view(flat: Tensor, start: int, parameter: Tensor) -> Tensor:
    """A view shaped like ``parameter``; convolution weights get the channels-last order."""
    piece = flat[start : start + parameter.numel()]
    if parameter.dim() == 4:
        out, inner, high, wide = parameter.shape
        return piece.view(out, high, wide, inner).permute(0, 3, 1, 2)
    return piece.view(parameter.shape)


class FlatAdam:
    """Owns the parameters of ``modules``: after construction they are views into ``values``."""

    BETAS = (0.9, 0.99)
    EPSILON = 1e-8

    def __init__(
        self, modules: list[nn.Module], weight_decay: float, clip: float, average: float
    ) -> None:
        self.parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
        device = self.parameters[0].device
        size = sum(p.numel() for p in self.parameters)
        self.values, self.gradient, self.first, self.second = (
            torch.zeros(size, device=device) for _ in range(4)
        )
        start = 0
        for p in self.parameters:
            view = _view(self.values, start, p)
            view.copy_(p.data)
            p.data = view
            p.grad = _view(self.gradient, start, p)
            start += p.numel()
        self.average_values = self.values.clone()
        self.weight_decay, self.clip, self.average = weight_decay, clip, average
        # Tensors, not numbers: a captured graph reads their value of the moment.
        self.rate = torch.zeros((), device=device)
        self.count = torch.zeros((), device=device)

    def zero(self) -> None:
        self.gradient.zero_()

    def step(self) -> None:
        """Clip, AdamW, moving average; every operation is in place and free of host syncs."""
        norm = torch.linalg.vector_norm(self.gradient)
        self.gradient.mul_((self.clip / (norm + 1e-6)).clamp(max=1.0))
        self.count.add_(1)
        b1, b2 = self.BETAS
        self.first.lerp_(self.gradient, 1 - b1)
        self.second.mul_(b2).addcmul_(self.gradient, self.gradient, value=1 - b2)
        scale = torch.sqrt(1 - b2**self.count) / (1 - b1**self.count)
        update = self.first / (self.second.sqrt() + self.EPSILON)
        self.values.mul_(1 - self.rate * self.weight_decay)
        self.values.sub_(update * (self.rate * scale))
        # A young average follows quickly, so that early checkpoints are usable.
        keep = torch.minimum((self.count + 1) / (self.count + 10), self.count * 0 + self.average)
        self.average_values.lerp_(self.values, 1 - keep)

    def state(self) -> dict[str, Tensor]:
        return {
            "optimiser.values": self.values,
            "optimiser.first": self.first,
            "optimiser.second": self.second,
            "optimiser.average": self.average_values,
            "optimiser.count": self.count,
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        for name, target in self.state().items():
            target.copy_(tensors[name])

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the block the networks run on the averaged weights."""
        kept = self.values.clone()
        self.values.copy_(self.average_values)
        try:
            yield
        finally:
            self.values.copy_(kept)


def cosine_rate(step: int, steps: int, peak: float, warm_up: int) -> float:
    """Learning rate: linear warm-up, then one cosine down to 1 % of the peak."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    progress = min(1.0, (step - warm_up) / max(1, steps - warm_up))
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
