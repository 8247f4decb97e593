"""The models in memory: those that fit beside the job at work."""

from __future__ import annotations

import gc
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass
from pathlib import Path

import torch

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.model import ModelProfile
from rockiln.domain.plan import Plan
from rockiln.domain.residency import Held, held_by, to_evict
from rockiln.engine.controlnets import ControlNetSet
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
from rockiln.worker.protocol import ModelInMemory

# After the end of a job, for its picture to be on its way.
_ANSWERED_SECONDS = 0.1


@dataclass(eq=False)
class ShelvedModel:
    """A loaded model, the policies and LoRAs on it, the ControlNets beside it, and its colours.

    Attributes:
        plan: of the last job that used it.
        held: what it holds while it does nothing.
        used_monotonic: when a job last had it.
    """

    model: LoadedModel
    policies: PolicySet
    loras: LoraSet
    controlnets: ControlNetSet
    colours: ColourMap
    plan: Plan
    held: Held
    used_monotonic: float = 0.0


class ModelShelf:
    """Loads on first use and keeps what fits beside the job at work, by the planner's prediction.

    Args:
        cache_dir: where digests of models are kept.
        pinned: ids of models that are never dropped.
        idle_seconds: another one that no job used for it is dropped; None: only for another.
        on_change: hears of all that is loaded when that has changed, longest unused first.
        monotonic: clock of the idle time, seconds.
    """

    def __init__(
        self,
        device: Device,
        cache_dir: Path,
        *,
        pinned: Collection[str] = (),
        idle_seconds: float | None = None,
        on_change: Callable[[list[ModelInMemory]], None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._device = device
        self._cache_dir = cache_dir
        self._pinned = frozenset(pinned)
        self._idle_seconds = idle_seconds
        self._on_change = on_change
        self._monotonic = monotonic
        self._shelf: OrderedDict[Hashable, ShelvedModel] = OrderedDict()

    def take(self, profile: ModelProfile, plan: Plan) -> ShelvedModel:
        """The model as the plan wants it. Files that changed on disk are loaded anew.

        What does not fit beside the plan's predicted peak leaves, the one unused longest first.

        Raises:
            BrokenModelError: the model cannot be loaded; the detail says why.
        """
        if not Path(profile.path).exists():
            raise BrokenModelError(f"model {profile.id}: {profile.path} is gone")
        key = (
            profile.path, signature_of(profile),
            plan.dtype, plan.placement, plan.decode_dtype, plan.decode_device,
            tuple(sorted(plan.quantisation.items())),
        )  # fmt: skip
        held = held_by(profile, plan, pinned=profile.id in self._pinned)
        self._make_room(key, profile, plan)
        if key not in self._shelf:
            self._shelf[key] = self._load(profile, plan, held)
            self._tell()
        self._shelf.move_to_end(key)
        shelved = self._shelf[key]
        shelved.plan, shelved.held = plan, held
        self.touch(shelved)
        return shelved

    def digest_of(self, folder: Path) -> str:
        """SHA-256 over the files of what stands beside a model; a known one is not read again."""
        return revision(folder, self._cache_dir)

    def touch(self, shelved: ShelvedModel) -> None:
        """Its idle time begins anew: a job had it until now."""
        shelved.used_monotonic = self._monotonic()

    def use_pause(self) -> float | None:
        """Learns colours, drops what nobody used for long. Not while a job is in hand.

        Returns:
            Seconds until there is something to do; None if there will not be.
        """
        now = self._monotonic()
        dues = [self._learn_colours(now), self._drop_idle(now)]
        return min((due for due in dues if due is not None), default=None)

    def _learn_colours(self, now: float) -> float | None:
        """Once the job before is answered."""
        unlearnt = [each for each in self._shelf.values() if each.colours.unlearnt]
        ahead = [each.used_monotonic + _ANSWERED_SECONDS - now for each in unlearnt]
        for each, seconds in zip(unlearnt, ahead, strict=True):
            if seconds <= 0:
                each.colours.learn()
        return min((seconds for seconds in ahead if seconds > 0), default=None)

    def _drop_idle(self, now: float) -> float | None:
        if self._idle_seconds is None:
            return None
        due = {
            key: shelved.used_monotonic + self._idle_seconds
            for key, shelved in self._shelf.items()
            if not shelved.held.pinned
        }
        self._drop([key for key, at in due.items() if at <= now])
        return min((at - now for at in due.values() if at > now), default=None)

    def _make_room(self, key: Hashable, profile: ModelProfile, plan: Plan) -> None:
        others = {other: each for other, each in self._shelf.items() if other != key}
        # The same model from files that have changed, or placed as an older plan wanted it.
        stale = [other for other, each in others.items() if each.model.profile.id == profile.id]
        kept = [(other, each.held) for other, each in others.items() if other not in stale]
        self._drop([*stale, *to_evict(kept, plan, self._device.facts)])
        moved = False
        for other in others.keys() & self._shelf.keys():
            self._shelf[other].loras.align(())  # the originals of what they change wait on the host
            moved |= self._shelf[other].controlnets.hold(())
            moved |= self._shelf[other].model.placement.rest()
        if moved:
            self._device.release_cache()

    def _drop(self, keys: Collection[Hashable]) -> None:
        for key in keys:
            gone = self._shelf.pop(key).model.profile.id
            sys.stderr.write(f"model {gone} leaves memory\n")
        if keys:
            gc.collect()  # modules and their hooks refer to each other
            self._device.release_cache()
            self._tell()

    def _tell(self) -> None:
        self._on_change(
            [
                ModelInMemory(
                    id=each.model.profile.id,
                    plan=each.plan,
                    device_bytes=each.held.device_bytes,
                    host_bytes=each.held.host_bytes,
                    pinned=each.held.pinned,
                )
                for each in self._shelf.values()
            ]
        )

    def _load(self, profile: ModelProfile, plan: Plan, held: Held) -> ShelvedModel:
        family = FAMILIES.get(profile.family)
        if family is None:
            raise BrokenModelError(f"model {profile.id}: family {profile.family!r} is not known")
        try:
            # The registry looked at the files in another process, some time ago.
            check_model(profile)
            path, configs = Path(profile.path), Path(profile.configs) if profile.configs else None
            digest = revision(path, self._cache_dir, configs)
            dtype, device = getattr(torch, plan.dtype), self._device.torch_device
            checkpoint = path if configs else None
            components = family.load(configs or path, dtype, device, checkpoint, plan.quantisation)
            components.scheduler_config.update(profile.scheduler_config)
        except BrokenModelError as error:
            raise BrokenModelError(f"model {profile.id}: {error.detail}") from error
        if plan.decode_dtype is not None:
            _cast_decoder(family, components, getattr(torch, plan.decode_dtype))
        decode_device = torch.device("cpu") if plan.decode_device == "cpu" else None
        placement = Placement(family.stages, components, plan.placement, decode_device)
        self._device.release_cache()  # as for a stage, see Placement.leave
        placement.settle()
        model = LoadedModel(components, placement, profile, digest, family)
        loras, controlnets = LoraSet(components, placement), ControlNetSet(components, placement)
        return ShelvedModel(model, PolicySet(model), loras, controlnets, ColourMap(), plan, held)


def _cast_decoder(family: Family, components: Components, dtype: torch.dtype) -> None:
    for name in family.stages["decode"]:
        module = components.modules[name]
        if module.dtype != dtype:
            module.to(dtype)
