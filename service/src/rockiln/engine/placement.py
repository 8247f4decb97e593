"""Where a model's modules are: all on the device, or only those at work, or piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from rockiln.domain.plan import Placement as PlacementName
from rockiln.engine.families.interface import Components, Stage
from rockiln.engine.loans import Loan, Staging, weights_of
from rockiln.engine.weights_on_demand import Granularity, WeightsOnDemand

_HOST = torch.device("cpu")
# Whose modules come to the device in pieces, and in which; the other stages' come whole.
PIECES: Mapping[PlacementName, Mapping[Stage, Granularity]] = {
    "resident": {},
    "model_offload": {},
    "text_encoder_offload": {"encode_prompt": "block"},
    "group_offload": {"encode_prompt": "block", "denoise": "block"},
    "sequential_offload": {"encode_prompt": "layer", "denoise": "layer"},
}


class Placement:
    """Moves the modules of one model. ``settle`` once after loading, then ``enter_stage``.

    Args:
        stages: which modules each stage uses.
        name: as the plan says; it never changes while the model is loaded.
        decode_device: where the decoder works, if not on the components' device.
        staging: of another model, with whose pieces this one's take turns.
    """

    def __init__(
        self,
        stages: Mapping[Stage, Sequence[str]],
        components: Components,
        name: PlacementName = "resident",
        decode_device: torch.device | None = None,
        staging: Mapping[Stage, Staging] | None = None,
    ) -> None:
        # A model may lack a part that its family has, such as the largest text encoder.
        self._stages: dict[Stage, list[str]] = {
            stage: [name for name in names if name in components.modules]
            for stage, names in stages.items()
        }
        self._components = components
        self._decode_device = decode_device or components.device
        self.name = name
        self._together = False
        self._loans: dict[str, Loan] = {}
        self._in_pieces = {name for stage in PIECES[name] for name in self._stages.get(stage, ())}
        self.staging = staging or {stage: Staging(components.device) for stage in PIECES[name]}

    @property
    def decode_device(self) -> torch.device:
        return self._decode_device

    def settle(self) -> None:
        """Everything to where it rests between jobs."""
        for name, module in self._components.modules.items():
            module.to(self._device_of(name) if self.name == "resident" else _HOST)
        self._together = self.name == "resident"
        for stage, granularity in PIECES[self.name].items():
            for name in self._stages.get(stage, ()):
                WeightsOnDemand(
                    self._components.modules[name],
                    self._components.device,
                    self.staging[stage],
                    granularity,
                )

    def rest(self) -> bool:
        """Offloaded, nothing stays on the device while other models work; whether it moved."""
        return self.name != "resident" and self.recall()

    def recall(self) -> bool:
        """Ends all loans, so that weights may be changed; whether there were any."""
        moved = [self._send_home(name) for name in list(self._loans)]
        moved += [staging.release() for staging in self.staging.values()]
        self._together &= not any(moved)
        return any(moved)

    def leave(self, stage: Stage, *, alone: bool = False) -> bool:
        """Sends to the host what the stage does not use.

        Args:
            alone: also where everything is resident, the others leave.

        Returns:
            Whether weights move, now or in ``enter``. Cached memory is to be given back between the
            two: what comes would be laid into segments of what left, and keep them from being given
            back (20 % more than its own size, measured with Z-Image).
        """
        if self.name == "resident" and not alone:
            return not self._together
        used, moved = self._stages.get(stage, []), False
        for other, staging in self.staging.items():
            if other != stage:
                moved |= staging.release()
        for name, module in self._components.modules.items():
            if name in self._in_pieces:
                continue
            if name in used:
                moved |= _is_elsewhere(module, self._device_of(name))
            else:
                moved |= self._send_home(name)
        return moved

    def enter(self, stage: Stage, *, alone: bool = False) -> None:
        """Makes the stage's modules ready, after ``leave``."""
        if self.name == "resident" and not alone:
            self._gather()
            return
        for name in self._stages.get(stage, []):
            if name not in self._in_pieces:
                self._lend(name)
        self._together = False

    def _gather(self) -> None:
        if not self._together:
            for name in self._components.modules:
                self._lend(name)
        self._together = True

    def _device_of(self, name: str) -> torch.device:
        """Where it works."""
        in_decode = name in self._stages.get("decode", [])
        return self._decode_device if in_decode else self._components.device

    def _lend(self, name: str) -> None:
        module, device = self._components.modules[name], self._device_of(name)
        if _is_elsewhere(module, device):
            self._loans[name] = Loan()
            self._loans[name].begin(weights_of(module), lambda weight: weight.to(device))

    def _send_home(self, name: str) -> bool:
        """Whether it was on the device."""
        if name in self._loans:
            self._loans.pop(name).end()
            return True
        module = self._components.modules[name]
        moved = _is_elsewhere(module, _HOST)
        module.to(_HOST)
        return moved


def enter_stage(
    placements: Sequence[Placement],
    stage: Stage,
    release_cache: Callable[[], None],
    *,
    alone: bool = False,
) -> None:
    """Weights of all of them as the stage wants them; what leaves makes room first."""
    moving = [placement.leave(stage, alone=alone) for placement in placements]
    if any(moving):
        release_cache()
    for placement in placements:
        placement.enter(stage, alone=alone)


def _is_elsewhere(module: Any, device: torch.device) -> bool:
    here = next((parameter.device for parameter in module.parameters()), device)
    return bool(here != device)
