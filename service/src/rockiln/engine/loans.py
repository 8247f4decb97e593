"""Weights that are lent to the device: the host's copy stays, and is what is there again after.

Nothing is copied back. Whatever changes weights has to have them all at home first
(``Placement.recall``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

# At which a kernel may read a matrix: what torch's own allocator gives.
_ALIGNMENT_BYTES = 512


class Loan:
    """Tensors that are on the device until ``end``."""

    def __init__(self) -> None:
        self._at_home: list[tuple[torch.Tensor, torch.Tensor]] = []

    def begin(
        self, tensors: Iterable[torch.Tensor], bring: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        """``bring`` makes of a tensor of the host one like it on the device; it may fail."""
        for tensor in tensors:
            self._at_home.append((tensor, tensor.data))
            tensor.data = bring(tensor.data)

    def end(self) -> None:
        for tensor, at_home in self._at_home:
            tensor.data = at_home
        self._at_home.clear()


class Staging:
    """One buffer of the device in which the pieces of a stage lie, the innermost last.

    The allocator is asked once in a stage: pieces that came and went by themselves left it with
    fragments of up to a fifth of what a job takes.

    Attributes:
        taken: bytes that lie there; set back, what was put since is gone.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._size_bytes = 0
        self._buffer: torch.Tensor | None = None
        self.taken = 0

    def hold(self, size_bytes: int) -> None:
        """There are to be so many bytes at least; pieces say so before they come."""
        self._size_bytes = max(self._size_bytes, size_bytes)

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy behind what lies there, in the same order of its dimensions."""
        if self._buffer is None or (self.taken == 0 and len(self._buffer) < self._size_bytes):
            self._buffer = None
            self._buffer = torch.empty(self._size_bytes, dtype=torch.uint8, device=self._device)
        end = self.taken + span_bytes(tensor)
        place = self._buffer[self.taken : end].view(tensor.dtype)
        self.taken = end
        return place.as_strided(tensor.shape, tensor.stride()).copy_(tensor)

    def release(self) -> bool:
        """Gives the buffer back; whether there was one."""
        held = self._buffer is not None
        self._buffer, self.taken = None, 0
        return held


def weights_of(part: nn.Module, *, whole: bool = True) -> list[torch.Tensor]:
    """Parameters and buffers; not ``whole``, those of no part within it."""
    return [*part.parameters(recurse=whole), *part.buffers(recurse=whole)]


def span_bytes(tensor: torch.Tensor) -> int:
    """What it takes in a buffer, to where the next one may begin."""
    if not tensor.numel():
        return 0
    numbers = 1 + sum(
        (size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True)
    )
    return -(-numbers * tensor.element_size() // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
