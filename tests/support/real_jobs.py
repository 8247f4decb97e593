"""Jobs of real-size models with random weights, stage by stage, on any device.

``counted_models`` runs them on torch's meta device, ``tests/gpu/measure_memory.py`` on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from transformers import T5EncoderModel

from rockiln.domain.ladder import DecodeRung, DenoiseRung, Rungs
from rockiln.domain.memory import guides_by_pairs
from rockiln.domain.model import DeviceFacts, ModelProfile, TransformerFacts
from rockiln.domain.plan import Plan, plan
from rockiln.engine.controls import Control, control_conditioning, steered
from rockiln.engine.families.interface import Conditioning, Stage
from rockiln.engine.loaded_model import LoadedModel
from rockiln.engine.rows import one_by_one
from support.known_models import with_controlnets
from support.parameters import parameters
from support.random_models import held_in_bits

_CLIP_TOKENS, _T5_TOKENS, _QWEN_TOKENS = 77, {"sd3": 256, "flux": 512}, 512


@dataclass(frozen=True)
class Case:
    """One row. ``kinds``: part → what its layers are held in; a GGUF file's, fp8 or ``q8_0``."""

    model: str
    width: int
    height: int
    batch: int = 1
    denoise: str = "full"
    decode: str = "full"
    unload: bool = False
    controlnets: int = 0
    kinds: dict[str, str] = field(default_factory=dict)

    @property
    def profile(self) -> ModelProfile:
        profile = with_controlnets(self.model, self.controlnets)
        held = {part: held_in_bits(self.model, part, kind) for part, kind in self.kinds.items()}
        return replace(profile, quantised=held)

    @property
    def rungs(self) -> Rungs:
        return Rungs(DenoiseRung(self.denoise), DecodeRung(self.decode))

    def chosen(self, device: DeviceFacts) -> Plan:
        """The plan of exactly these rungs."""
        asked = parameters(
            width=self.width, height=self.height, num_images=self.batch, model=self.model
        )
        chosen = plan(asked, self.profile, device, remembered=self.rungs)
        assert chosen.rungs == self.rungs, (chosen.rungs, self)
        return replace(chosen, unload_before_decode=self.unload)


class RealJob:
    """The work of each stage. Weights have to be where they belong."""

    def __init__(
        self, case: Case, chosen: Plan, model: LoadedModel, controlnets: Sequence[Any]
    ) -> None:
        self._case, self._chosen, self._model = case, chosen, model
        self._components, self._family = model.components, model.family
        self._controlnets = controlnets
        self._on_paper = self._components.device.type == "meta"

    def modules_of(self, stage: Stage) -> list[Any]:
        modules = self._components.modules
        return [modules[name] for name in self._family.stages[stage] if name in modules]

    def encode(self) -> None:
        """A prompt as long as each encoder's window."""
        for module in self.modules_of("encode_prompt"):
            clip = "CLIP" in type(module).__name__
            is_t5 = isinstance(module, T5EncoderModel)
            t5 = _T5_TOKENS.get(self._family.name, 0)
            tokens = _CLIP_TOKENS if clip else t5 if is_t5 else _QWEN_TOKENS
            layers = clip or self._family.name in {"flux2", "z_image"}
            more: dict[str, Any] = {}
            if not clip and not is_t5:
                more = {"use_cache": False, "attention_mask": self._mask(tokens)}
            ids = self._zeros((1, tokens), torch.long)
            module(ids, output_hidden_states=layers, **more)

    def _mask(self, tokens: int) -> torch.Tensor:
        if self._on_paper:  # the values of one that is to be made wider would be looked at
            return self._zeros((1, 1, tokens, tokens), torch.bool)
        mask = self._zeros((1, tokens), torch.bool)
        filled = self._family.name == "qwen_image"  # the others' is filled up behind the prompt
        mask[:, : tokens if filled else tokens // 2] = True
        return mask

    def denoise(self, steps: int = 1) -> torch.Tensor:
        """The latents [1, C, h, w] that a decoder is given."""
        case = self._case
        samples = case.batch * (2 if guides_by_pairs(self._model.profile) else 1)
        predict: Any = partial(self._family.predict, self._components)
        conditioning = self._conditioning(samples)
        if self._controlnets:
            picture = self._zeros((1, 3, case.height, case.width))
            controls = [(Control(picture, 1.0, 0.0, 1.0), 1.0)] * len(self._controlnets)
            conditioning |= control_conditioning([controls] * samples)
            predict = steered(predict, self._controlnets)
        if self._chosen.split_samples:
            predict = one_by_one(predict)
        latents = self.latents(samples)
        for _ in range(steps):
            predict(latents, self._zeros((samples,), torch.float32), conditioning)
        return latents[:1].clone()

    def latents(self, samples: int) -> torch.Tensor:
        """[samples, C, h, w]."""
        assert self._model.profile.architecture is not None
        grid = 16 if self._family.name == "flux2" else 8  # its latents are patches already
        channels = self._model.profile.architecture.denoiser.latent_channels
        return self._zeros((samples, channels, self._case.height // grid, self._case.width // grid))

    def _conditioning(self, samples: int) -> Conditioning:
        assert self._model.profile.architecture is not None
        facts, family = self._model.profile.architecture.denoiser, self._family.name
        if not isinstance(facts, TransformerFacts):
            shapes: dict[str, Any] = {"prompt_embeds": (_CLIP_TOKENS, facts.cross_attention_width)}
            if family == "sdxl":
                shapes |= {"text_embeds": (1280,), "time_ids": (6,)}
            return self._all_zeros(samples, shapes)
        config = self._components.modules["transformer"].config
        width = config.cap_feat_dim if family == "z_image" else config.joint_attention_dim
        shapes = {"prompt_embeds": (facts.text_tokens, width)}
        if family in {"sd3", "flux"}:
            shapes |= {"pooled": (config.pooled_projection_dim,), "guidance": ()}
        found = self._all_zeros(samples, shapes)
        if family in {"z_image", "qwen_image"}:
            found["tokens"] = torch.full([samples], facts.text_tokens)
        return found

    def _all_zeros(self, samples: int, shapes: dict[str, Any]) -> Conditioning:
        return {name: self._zeros((samples, *shape)) for name, shape in shapes.items()}

    def _zeros(self, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> torch.Tensor:
        components = self._components
        return torch.zeros(shape, dtype=dtype or components.dtype, device=components.device)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The picture [1, 3, height, width] in float32."""
        return self._family.decode(self._components, latents).float()
