"""The ControlNets beside a loaded model: loaded for a job, placed and optimised as the model is."""

from __future__ import annotations

import gc
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffusers.models.controlnets.controlnet import ControlNetModel

from rockiln.domain.plan import Plan
from rockiln.engine.families.interface import Components, Stage
from rockiln.engine.families.latents import grid_px_of
from rockiln.engine.families.loading import load_module
from rockiln.engine.loaded_model import LoadedParts
from rockiln.engine.placement import Placement
from rockiln.engine.policies import PolicySet
from rockiln.registry.controlnets import read_controlnet
from rockiln.registry.revision import signature

_PART = "controlnet"
_STAGES: dict[Stage, tuple[str, ...]] = {"denoise": (_PART,)}


@dataclass(eq=False)
class _Loaded:
    signature: str
    parts: LoadedParts
    policies: PolicySet


class ControlNetSet:
    """Those of one model, until a job comes that does not want them.

    Args:
        components: of the model.
        placement: the model's own; theirs are like it.
    """

    def __init__(self, components: Components, placement: Placement) -> None:
        self._components = components
        self._placement = placement
        self._loaded: dict[Path, _Loaded] = {}

    def hold(self, wanted: Collection[Path]) -> bool:
        """Drops the others and loads what is not there or has changed on disk.

        Returns:
            Whether one was dropped, so that cached memory is worth giving back.

        Raises:
            BrokenModelError: one is unsound, or made for another base.
        """
        stale = [
            path
            for path, loaded in self._loaded.items()
            if path not in wanted or signature(path) != loaded.signature
        ]
        for path in stale:
            del self._loaded[path]
        if stale:
            gc.collect()  # modules and their hooks refer to each other
        self.networks(wanted)
        return bool(stale)

    @property
    def held(self) -> list[Path]:
        return list(self._loaded)

    def networks(self, paths: Collection[Path]) -> list[Any]:
        """In that order; one that left for another model's job comes again."""
        for path in paths:
            if path not in self._loaded:
                self._loaded[path] = self._load(path)
        return [self._loaded[path].parts.components.modules[_PART] for path in paths]

    def align(self, plan: Plan) -> None:
        """As the policies of that plan want them."""
        for loaded in self._loaded.values():
            loaded.policies.align(replace(plan, vae_tile_px=None))

    @property
    def placements(self) -> list[Placement]:
        return [loaded.parts.placement for loaded in self._loaded.values()]

    def _load(self, path: Path) -> _Loaded:
        base = self._components
        read = read_controlnet(path)
        found_signature = signature(path)
        found = read.of_unet(base.modules["unet"].config, grid_px_of(base.modules["vae"]))
        module = load_module(ControlNetModel, found.weights, base.dtype)
        components = replace(base, modules={_PART: module})
        placement = Placement(
            _STAGES, components, self._placement.name, staging=self._placement.staging
        )
        placement.settle()
        parts = LoadedParts(components, placement)
        return _Loaded(found_signature, parts, PolicySet(parts))
