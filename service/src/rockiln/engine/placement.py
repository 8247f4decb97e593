"""Where a model's modules are: all on the device, or only those of the stage at work."""

from __future__ import annotations

from rockiln.engine.families.interface import Components, Family, Stage


class Placement:
    """Moves the modules of one model. ``resident`` and ``offload`` choose, ``enter`` obeys."""

    def __init__(self, family: Family, components: Components) -> None:
        self._stages = family.stages
        self._components = components
        self.offloaded = False

    def resident(self) -> None:
        """Everything to the device, to stay."""
        for module in self._components.modules.values():
            module.to(self._components.device)
        self.offloaded = False

    def offload(self) -> None:
        """Everything to host memory; a stage brings in what it uses."""
        for module in self._components.modules.values():
            module.to("cpu")
        self.offloaded = True

    def enter(self, stage: Stage) -> None:
        """Makes the stage's modules ready; the others leave the device first if offloaded."""
        if not self.offloaded:
            return
        used = self._stages[stage]
        for name, module in self._components.modules.items():
            if name not in used:
                module.to("cpu")
        for name in used:
            self._components.modules[name].to(self._components.device)
