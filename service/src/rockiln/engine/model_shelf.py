"""The models in memory: the last few used, by count."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

import torch

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.model import ModelProfile
from rockiln.domain.plan import Plan
from rockiln.engine.families import FAMILIES
from rockiln.engine.families.interface import Components, Family
from rockiln.engine.loaded_model import LoadedModel
from rockiln.engine.loras import LoraSet
from rockiln.engine.placement import Placement
from rockiln.engine.policies import PolicySet
from rockiln.engine.preview import ColourMap
from rockiln.platforms.interface import Device
from rockiln.registry.checkpoint import check_model
from rockiln.registry.revision import revision, signature_of

KEPT_MODELS = 2


@dataclass(frozen=True, eq=False)
class ShelvedModel:
    """A loaded model, the policies and LoRAs on it, and what is known of its colours."""

    model: LoadedModel
    policies: PolicySet
    loras: LoraSet
    colours: ColourMap


class ModelShelf:
    """Loads on first use; drops the one unused longest when there are too many.

    Args:
        cache_dir: where digests of models are kept.
        kept: models in memory at most.
    """

    def __init__(self, device: Device, cache_dir: Path, *, kept: int = KEPT_MODELS) -> None:
        self._device = device
        self._cache_dir = cache_dir
        self._kept = kept
        self._shelf: OrderedDict[Hashable, ShelvedModel] = OrderedDict()

    def take(self, profile: ModelProfile, plan: Plan) -> ShelvedModel:
        """The model as the plan wants it. Files that changed on disk are loaded anew.

        Raises:
            BrokenModelError: the model cannot be loaded; the detail says why.
        """
        if not Path(profile.path).exists():
            raise BrokenModelError(f"model {profile.id}: {profile.path} is gone")
        key = (
            profile.path, signature_of(profile),
            plan.dtype, plan.placement, plan.decode_dtype, plan.decode_device,
        )  # fmt: skip
        if key not in self._shelf:
            while len(self._shelf) >= self._kept:
                self._shelf.popitem(last=False)
                self._device.release_cache()
            self._shelf[key] = self._load(profile, plan)
        self._shelf.move_to_end(key)
        return self._shelf[key]

    def _load(self, profile: ModelProfile, plan: Plan) -> ShelvedModel:
        family = FAMILIES.get(profile.family)
        if family is None:
            raise BrokenModelError(f"model {profile.id}: family {profile.family!r} is not known")
        try:
            # The registry looked at the files in another process, some time ago.
            check_model(profile)
            path, configs = Path(profile.path), Path(profile.configs) if profile.configs else None
            digest = revision(path, self._cache_dir, configs)
            dtype, device = getattr(torch, plan.dtype), self._device.torch_device
            components = family.load(configs or path, dtype, device, path if configs else None)
        except BrokenModelError as error:
            raise BrokenModelError(f"model {profile.id}: {error.detail}") from error
        if plan.decode_dtype is not None:
            _cast_decoder(family, components, getattr(torch, plan.decode_dtype))
        decode_device = torch.device("cpu") if plan.decode_device == "cpu" else None
        placement = Placement(family, components, plan.placement, decode_device)
        placement.settle()
        model = LoadedModel(profile, digest, family, components, placement)
        return ShelvedModel(model, PolicySet(model), LoraSet(components), ColourMap())


def _cast_decoder(family: Family, components: Components, dtype: torch.dtype) -> None:
    for name in family.stages["decode"]:
        module = components.modules[name]
        if module.dtype != dtype:
            module.to(dtype)
