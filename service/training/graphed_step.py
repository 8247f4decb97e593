"""A training step as one CUDA graph: recorded once, replayed without the host's launch cost."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from training.flat_adam import FlatAdam


class GraphedStep:
    """Runs ``loss()`` (a dict of scalars, the entry "loss" being minimised) and an optimiser step.

    ``inputs`` are the static buffers that ``loss`` reads; ``__call__`` fills them and replays. On
    the CPU the step runs eagerly: the same arithmetic, no recording.
    """

    def __init__(
        self, loss: Callable[[], dict[str, Tensor]], inputs: dict[str, Tensor], optimiser: FlatAdam
    ) -> None:
        self._loss, self.inputs, self._optimiser = loss, inputs, optimiser
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result: dict[str, Tensor] = {}
        if next(iter(inputs.values())).is_cuda:
            self._record()

    def _once(self) -> dict[str, Tensor]:
        self._optimiser.zero()
        result = self._loss()
        torch.autograd.backward(result["loss"])
        self._optimiser.step()
        return {name: value.detach() for name, value in result.items()}

    def _record(self) -> None:
        kept = {name: value.clone() for name, value in self._optimiser.state().items()}
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._once()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._result = self._once()
        # Warm-up steps were real steps on stale inputs: undo them.
        self._optimiser.load(kept)

    def __call__(self, rate: float, **inputs: Tensor) -> dict[str, Tensor]:
        """One step at learning rate ``rate``; the returned scalars are overwritten by the next."""
        for name, value in inputs.items():
            self.inputs[name].copy_(value)
        self._optimiser.rate.fill_(rate)
        if self._graph is None:
            self._result = self._once()
        else:
            self._graph.replay()
        return self._result
