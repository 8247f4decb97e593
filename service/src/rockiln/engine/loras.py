"""LoRAs on a loaded model: their deltas in its weights, and the weights exactly back again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import safetensors
import torch

from rockiln.engine.families.interface import Components
from rockiln.engine.placement import Placement
from rockiln.engine.quantisation import QuantisedLinear, layer_shape
from rockiln.registry.loras import Layers, LoraLayer, read_lora
from rockiln.worker.protocol import Run

# Strength, [out, rank] and [rank, in * kernel] in float32.
_Matrices = tuple[float, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class AppliedLora:
    """A file and how strongly it works."""

    path: Path
    weight: float


class LoraSet:
    """The LoRAs on one model's weights, kept in line with the job at work.

    The weights of each changed layer wait in host memory and are copied back: what is drawn after
    a removal is bit for bit what was drawn before. Several LoRAs are added up in float32 in the
    order of the request, then rounded once. A layer that is held in few bits stays as it is, since
    it would round the change away: what the LoRAs add to its output is computed beside it.
    """

    def __init__(self, components: Components, placement: Placement) -> None:
        self._components = components
        self._placement = placement
        self._applied: tuple[AppliedLora, ...] = ()
        self._originals: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._beside: list[Any] = []

    def align(self, wanted: tuple[AppliedLora, ...]) -> None:
        """Raises BrokenModelError where a file does not fit; the model is then without any."""
        if wanted == self._applied:
            return
        self._placement.recall()
        self._remove()
        layers = layers_of(self._components)
        changes: dict[tuple[str, str], list[tuple[AppliedLora, LoraLayer]]] = {}
        for lora in wanted:
            for layer in read_lora(lora.path, layers):
                changes.setdefault((layer.component, layer.layer), []).append((lora, layer))
        with ExitStack() as stack:
            files = {
                lora: stack.enter_context(safetensors.safe_open(lora.path, framework="pt"))
                for lora in wanted
            }
            for (component, name), parts in changes.items():
                module = self._components.modules[component].get_submodule(name)
                if isinstance(module, QuantisedLinear):
                    loras = [_matrices(files[lora], lora, layer) for lora, layer in parts]
                    self._beside.append(module.register_forward_hook(_beside(loras)))
                    continue
                weight = module.weight
                self._originals.append((weight, weight.detach().to("cpu", copy=True)))
                total = weight.detach().float()
                for lora, layer in parts:
                    total = total + _delta(files[lora], lora, layer).to(total).view_as(total)
                weight.copy_(total)
        self._applied = wanted

    def _remove(self) -> None:
        for weight, original in self._originals:
            weight.copy_(original)
        for hook in self._beside:
            hook.remove()
        self._originals, self._beside = [], []
        self._applied = ()


def _delta(file: Any, lora: AppliedLora, layer: LoraLayer) -> torch.Tensor:
    """[out, in * kernel], float32."""
    strength, up, down = _matrices(file, lora, layer)
    return strength * (up @ down)


def _matrices(file: Any, lora: AppliedLora, layer: LoraLayer) -> _Matrices:
    up, down = (file.get_tensor(name).float().flatten(1) for name in (layer.up, layer.down))
    scale = 1.0 if layer.alpha is None else float(file.get_tensor(layer.alpha)) / layer.rank
    return lora.weight * scale, up, down


def _beside(loras: list[_Matrices]) -> Any:
    """A hook that adds to a layer's output. The matrices stay on the host between forwards."""

    def add(layer: QuantisedLinear, inputs: tuple[torch.Tensor], output: torch.Tensor) -> Any:
        (given,) = inputs
        given = given.to(layer.compute_dtype)
        for strength, up, down in loras:
            output = output + strength * (given @ down.to(given).T @ up.to(given).T)
        return output

    return add


def layers_of(components: Components) -> Layers:
    """The layers that a LoRA may change, as they are in memory."""
    return {
        component: {
            name: layer_shape(part)
            for name, part in module.named_modules()
            if isinstance(getattr(part, "weight", None), torch.Tensor) and part.weight.dim() > 1
        }
        for component, module in components.modules.items()
        if component != "vae"
    }


def digests_of(names: Iterable[str], files: Mapping[str, str]) -> dict[str, str]:
    """Name → SHA-256 of its file (name → path), for the record of a picture."""
    found = {}
    for name in names:
        path = files[name]
        status = Path(path).stat()
        found[name] = _digest(path, status.st_size, status.st_mtime_ns)
    return found


@lru_cache(maxsize=64)
def _digest(path: str, size_bytes: int, mtime_ns: int) -> str:
    del size_bytes, mtime_ns  # they stand for the content
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def loras_of(run: Run) -> tuple[AppliedLora, ...]:
    """What a job wants on its model."""
    return tuple(
        AppliedLora(Path(run.lora_files[use.name]), use.weight) for use in run.parameters.loras
    )
