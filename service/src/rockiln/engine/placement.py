"""Where a model's modules are: all on the device, or only those at work, or piece by piece."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from rockiln.domain.plan import Placement as PlacementName
from rockiln.engine.families.interface import Components, Stage
from rockiln.engine.weights_on_demand import Granularity, WeightsOnDemand

_HOST = torch.device("cpu")


class Placement:
    """Moves the modules of one model. ``settle`` once after loading, then ``enter`` each stage.

    Args:
        stages: which modules each stage uses.
        name: as the plan says; it never changes while the model is loaded.
        decode_device: where the decoder works, if not on the components' device.
    """

    def __init__(
        self,
        stages: Mapping[Stage, Sequence[str]],
        components: Components,
        name: PlacementName = "resident",
        decode_device: torch.device | None = None,
    ) -> None:
        # A model may lack a part that its family has, such as the largest text encoder.
        self._stages: dict[Stage, list[str]] = {
            stage: [name for name in names if name in components.modules]
            for stage, names in stages.items()
        }
        self._components = components
        self._decode_device = decode_device or components.device
        self._name = name
        self._together = False
        self._on_demand: dict[str, WeightsOnDemand] = {}

    @property
    def decode_device(self) -> torch.device:
        return self._decode_device

    def settle(self) -> None:
        """Everything to where it rests between jobs."""
        if self._name == "resident":
            self._gather()
            return
        for module in self._components.modules.values():
            module.to(_HOST)
        if self._name != "model_offload":
            granularity: Granularity = "block" if self._name == "group_offload" else "layer"
            for name in self._stages["denoise"]:
                module = self._components.modules[name]
                self._on_demand[name] = WeightsOnDemand(
                    module, self._components.device, granularity
                )

    def rest(self) -> bool:
        """Offloaded, nothing stays on the device while other models work; whether it moved."""
        if self._name == "resident":
            return False
        moved = False
        for name, module in self._components.modules.items():
            if name not in self._on_demand:
                moved |= _move(module, _HOST)
        return moved

    def enter(self, stage: Stage, *, alone: bool = False) -> bool:
        """Makes the stage's modules ready; offloaded, the others leave the device first.

        Args:
            alone: also where everything is resident, the others leave.

        Returns:
            Whether something moved, so that cached memory is worth giving back.
        """
        if self._name == "resident" and not alone:
            moved = not self._together
            self._gather()
            return moved
        used = self._stages.get(stage, [])
        moved = False
        for name, module in self._components.modules.items():
            if name not in used and name not in self._on_demand:
                moved |= _move(module, _HOST)
        for name in used:
            if name not in self._on_demand:
                moved |= _move(self._components.modules[name], self._home(name))
        self._together = False
        return moved

    def _gather(self) -> None:
        if not self._together:
            for name, module in self._components.modules.items():
                module.to(self._home(name))
        self._together = True

    def _home(self, name: str) -> torch.device:
        in_decode = name in self._stages.get("decode", [])
        return self._decode_device if in_decode else self._components.device


def _move(module: Any, device: torch.device) -> bool:
    """Whether the module was elsewhere."""
    before = next((parameter.device for parameter in module.parameters()), device)
    module.to(device)
    return bool(before != device)
