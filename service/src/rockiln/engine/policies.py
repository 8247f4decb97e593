"""Optimisations as objects: what they apply to, how they are applied and how removed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

from rockiln.domain.plan import Plan
from rockiln.engine.attention import SlicedAttention
from rockiln.engine.families.latents import grid_px_of
from rockiln.engine.loaded_model import LoadedParts

_FILM_DIMENSIONS = 5


class Policy(Protocol):
    """``apply`` then ``remove`` leaves the model as it was."""

    @property
    def name(self) -> str: ...

    def applies_to(self, plan: Plan) -> bool: ...

    def apply(self, model: LoadedParts) -> None: ...

    def remove(self, model: LoadedParts) -> None: ...


@dataclass(frozen=True)
class SdpaAttention:
    """torch's fused attention in denoiser and VAE: no matrix of scores in memory."""

    name: str = "sdpa_attention"

    def applies_to(self, plan: Plan) -> bool:
        return not plan.sliced_attention

    def apply(self, model: LoadedParts) -> None:
        _swap_attention(model, self.name, AttnProcessor2_0())

    def remove(self, model: LoadedParts) -> None:
        _restore_attention(model, self.name)


@dataclass(frozen=True)
class SliceAttention:
    """Attention for a few queries at a time: for devices whose fused kernels do not fit."""

    name: str = "sliced_attention"

    def applies_to(self, plan: Plan) -> bool:
        return plan.sliced_attention

    def apply(self, model: LoadedParts) -> None:
        _swap_attention(model, self.name, SlicedAttention())

    def remove(self, model: LoadedParts) -> None:
        _restore_attention(model, self.name)


@dataclass(frozen=True)
class ChannelsLast:
    """Convolution weights with channels innermost, the order the fast kernels want."""

    name: str = "channels_last"

    def applies_to(self, plan: Plan) -> bool:
        return plan.channels_last

    def apply(self, model: LoadedParts) -> None:
        model.undo[self.name] = None
        self._lay_out(model, torch.channels_last)

    def remove(self, model: LoadedParts) -> None:
        del model.undo[self.name]
        self._lay_out(model, torch.contiguous_format)

    @staticmethod
    def _lay_out(model: LoadedParts, memory_format: torch.memory_format) -> None:
        model.placement.recall()
        for module in model.components.modules.values():
            # An autoencoder of films has kernels of five dimensions, which this order is not for.
            if all(weight.dim() < _FILM_DIMENSIONS for weight in module.parameters()):
                module.to(memory_format=memory_format)


@dataclass(frozen=True)
class VaeTiling:
    """Decodes in overlapping tiles of ``tile_px``: the peak no longer grows with the picture."""

    tile_px: int
    name: str = "vae_tiling"

    def applies_to(self, plan: Plan) -> bool:
        return plan.vae_tile_px == self.tile_px

    def apply(self, model: LoadedParts) -> None:
        vae = model.components.modules["vae"]
        wanted = {"use_tiling": True, **self._sizes(vae)}
        model.undo[self.name] = {name: getattr(vae, name) for name in wanted}
        for name, value in wanted.items():
            setattr(vae, name, value)

    def remove(self, model: LoadedParts) -> None:
        vae = model.components.modules["vae"]
        for name, value in model.undo.pop(self.name).items():
            setattr(vae, name, value)

    def _sizes(self, vae: Any) -> dict[str, int]:
        """As the autoencoder's class has them; a quarter of a tile overlaps the next."""
        if hasattr(vae, "tile_sample_stride_height"):
            sizes = {"tile_sample_min": self.tile_px, "tile_sample_stride": self.tile_px * 3 // 4}
            return {f"{n}_{side}": px for n, px in sizes.items() for side in ("height", "width")}
        latents = self.tile_px // grid_px_of(vae)
        return {"tile_sample_min_size": self.tile_px, "tile_latent_min_size": latents}


class PolicySet:
    """The policies applied to one model, kept in line with the plan at work."""

    def __init__(self, model: LoadedParts) -> None:
        self._model = model
        self._applied: list[Policy] = []

    @property
    def names(self) -> list[str]:
        """Sorted, so that the order in which plans came does not show in a picture's record."""
        return sorted(policy.name for policy in self._applied)

    def align(self, plan: Plan) -> None:
        """Removes what the plan does not want, then applies what it wants and is not there."""
        wanted = list(wanted_policies(plan))
        for policy in [policy for policy in self._applied if policy not in wanted]:
            policy.remove(self._model)
            self._applied.remove(policy)
        for policy in wanted:
            if policy not in self._applied:
                policy.apply(self._model)
                self._applied.append(policy)


def wanted_policies(plan: Plan) -> Iterator[Policy]:
    """The policies of a plan, in the order they are applied."""
    tile_px = plan.vae_tile_px
    tiling: list[Any] = [] if tile_px is None else [VaeTiling(tile_px)]
    for policy in (SdpaAttention(), SliceAttention(), ChannelsLast(), *tiling):
        if policy.applies_to(plan):
            yield policy


def _swap_attention(model: LoadedParts, name: str, processor: Any) -> None:
    attending = {
        part: module
        for part, module in model.components.modules.items()
        if _attends_plainly(module)
    }
    model.undo[name] = {part: module.attn_processors for part, module in attending.items()}
    for module in attending.values():
        module.set_attn_processor(processor)


def _attends_plainly(module: Any) -> bool:
    """As a UNet and an autoencoder do; a joint transformer's processors are fused as they come."""
    return hasattr(module, "set_attn_processor") and all(
        isinstance(processor, AttnProcessor | AttnProcessor2_0 | SlicedAttention)
        for processor in module.attn_processors.values()
    )


def _restore_attention(model: LoadedParts, name: str) -> None:
    for part, processors in model.undo.pop(name).items():
        model.components.modules[part].set_attn_processor(processors)
