"""Jobs of real-size models on torch's meta device: what their tensors take, with no card.

``python -m support.counted_models`` writes ``tests/fixtures/memory/counted.json``. The engine's own
families, policies and offloading run on weights that are shapes alone. What this cannot see: the
process's context, the workspaces of convolutions and matrix products, and how the allocator fits
blocks into its segments. Attention is taken to keep no scores.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.quantizers.gguf.utils import GGUFParameter
from transformers import T5EncoderModel

from rockiln.domain.ladder import DecodeRung, DenoiseRung, Rungs
from rockiln.domain.memory import guides_by_pairs
from rockiln.domain.model import DeviceFacts, ModelProfile, TransformerFacts
from rockiln.domain.plan import Plan, plan
from rockiln.domain.quantisation import AT_LOAD, TYPE_BY_NAME, QuantisedWeights, StoredTensor
from rockiln.engine.controls import Control, control_conditioning, steered
from rockiln.engine.families.interface import Conditioning, Stage
from rockiln.engine.loaded_model import LoadedModel, LoadedParts
from rockiln.engine.placement import Placement
from rockiln.engine.policies import PolicySet
from rockiln.engine.quantisation import QuantisedLinear, layer_shape
from rockiln.engine.rows import one_by_one
from rockiln.engine.weights_on_demand import Granularity, WeightsOnDemand
from rockiln.registry.quantised_weights import held_quantised, rounded_at_load
from support.allocations import Allocations, fused_attention, weights_of
from support.known_models import with_controlnets
from support.parameters import parameters
from support.random_models import build

COUNTED = Path(__file__).parents[1] / "fixtures" / "memory" / "counted.json"
META = torch.device("meta")
# A card that everything fits, so that the rungs are those that a case names.
CARD = DeviceFacts("gpu", "on paper", 1 << 40, 8, "cuda", "sm_90", 1 << 41)
_STAGES: tuple[Stage, ...] = ("encode_prompt", "denoise", "decode")
_CLIP_TOKENS, _T5_TOKENS, _QWEN_TOKENS = 77, {"sd3": 256, "flux": 512}, 512
_GRANULARITY: dict[str, Granularity] = {"group_offload": "block", "sequential_offload": "layer"}


@dataclass(frozen=True)
class Case:
    """One row. ``kinds``: part → what its layers are held in; a GGUF file's or ``q8_0``."""

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
        return with_controlnets(self.model, self.controlnets)

    @property
    def chosen(self) -> Plan:
        rungs = Rungs(DenoiseRung(self.denoise), DecodeRung(self.decode))
        asked = parameters(
            width=self.width, height=self.height, num_images=self.batch, model=self.model
        )
        chosen = plan(asked, self.profile, CARD, remembered=rungs)
        assert chosen.rungs == rungs, self
        return replace(chosen, unload_before_decode=self.unload)


class CountedJob:
    """One job, stage by stage."""

    def __init__(self, case: Case) -> None:
        self._case, self._chosen, self._profile = case, case.chosen, case.profile
        self.held: dict[str, QuantisedWeights] = {}
        for name, kind in case.kinds.items():
            self.held[name] = hold(self._modules[name], kind)
        PolicySet(self._model).align(self._chosen)
        self._denoisers = [*self._of("denoise"), *self._controlnets]
        if granularity := _GRANULARITY.get(self._chosen.placement):
            for module in self._denoisers:
                WeightsOnDemand(module, META, granularity)

    @cached_property
    def _model(self) -> LoadedModel:
        settled = replace(self._chosen, placement="resident", decode_device="device")
        return build(self._profile, settled, META)

    @cached_property
    def _controlnets(self) -> list[Any]:
        """As ``engine.controlnets`` has them."""
        components = self._model.components
        with META:
            made = [
                ControlNetModel.from_unet(self._modules["unet"], load_weights_from_unet=False)
                for _ in self._profile.controlnets
            ]
        for module in made:
            module.to(components.dtype).eval().requires_grad_(requires_grad=False)
            alone = replace(components, modules={"controlnet": module})
            parts = LoadedParts(alone, Placement({}, alone))
            PolicySet(parts).align(replace(self._chosen, vae_tile_px=None))
        return made

    @property
    def _modules(self) -> dict[str, Any]:
        return self._model.components.modules

    def _of(self, stage: Stage) -> list[Any]:
        names = self._model.family.stages[stage]
        return [self._modules[name] for name in names if name in self._modules]

    def run(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, int]]:
        """Stage → bytes of the weights on the device, and the most of other tensors at once."""
        works = (self._encode, self._denoise, self._decode)
        found: dict[str, dict[str, int]] = {}
        for stage, work in zip(_STAGES, works, strict=True):
            modules = [*self._modules.values(), *self._controlnets]
            with torch.no_grad(), fused_attention(monkeypatch), Allocations(modules) as allocated:
                work()
            weights = sum(map(weights_of, self._on_device(stage)))
            found[stage] = {"weights": weights, "tensors": allocated.peak_bytes}
        return found

    def _on_device(self, stage: Stage) -> list[Any]:
        """As ``engine.placement`` has them; pieces of an offloaded denoiser are counted as made."""
        alone = stage == "decode" and self._case.unload
        if self._chosen.placement == "resident" and not alone:
            return [*self._modules.values(), *self._controlnets]
        if stage != "denoise":
            return self._of(stage)
        return self._denoisers if self._chosen.placement == "model_offload" else []

    def _encode(self) -> None:
        for module in self._of("encode_prompt"):
            clip = "CLIP" in type(module).__name__
            is_t5 = isinstance(module, T5EncoderModel)
            t5 = _T5_TOKENS.get(self._profile.family, 0)
            tokens = _CLIP_TOKENS if clip else t5 if is_t5 else _QWEN_TOKENS
            layers = clip or self._profile.family in {"flux2", "z_image"}
            more: dict[str, Any] = {}
            if not clip and not is_t5:  # with a mask, as the values of one are looked at
                mask = torch.empty((1, 1, tokens, tokens), dtype=torch.bool, device=META)
                more = {"use_cache": False, "attention_mask": mask}
            ids = torch.empty((1, tokens), dtype=torch.long, device=META)
            module(ids, output_hidden_states=layers, **more)

    @property
    def _latents_shape(self) -> tuple[int, int, int]:
        assert self._profile.architecture is not None
        grid = 16 if self._profile.family == "flux2" else 8  # its latents are patches already
        channels = self._profile.architecture.denoiser.latent_channels
        return channels, self._case.height // grid, self._case.width // grid

    def _denoise(self) -> None:
        case, components, family = self._case, self._model.components, self._model.family
        samples = case.batch * (2 if guides_by_pairs(self._profile) else 1)
        like: dict[str, Any] = {"device": META, "dtype": components.dtype}
        predict: Any = partial(family.predict, components)
        conditioning = self._conditioning(samples, like)
        if self._controlnets:
            picture = torch.empty((1, 3, case.height, case.width), **like)
            controls = [(Control(picture, 1.0, 0.0, 1.0), 1.0)] * len(self._controlnets)
            conditioning |= control_conditioning([controls] * samples)
            predict = steered(predict, self._controlnets)
        if self._chosen.split_samples:
            predict = one_by_one(predict)
        latents = torch.empty((samples, *self._latents_shape), **like)
        predict(latents, torch.empty(samples, device=META), conditioning)

    def _conditioning(self, samples: int, like: dict[str, Any]) -> Conditioning:
        assert self._profile.architecture is not None
        facts, family = self._profile.architecture.denoiser, self._profile.family
        if not isinstance(facts, TransformerFacts):
            shapes: dict[str, Any] = {"prompt_embeds": (_CLIP_TOKENS, facts.cross_attention_width)}
            if family == "sdxl":
                shapes |= {"text_embeds": (1280,), "time_ids": (6,)}
            return _empty(samples, shapes, like)
        config = self._modules["transformer"].config
        width = config.cap_feat_dim if family == "z_image" else config.joint_attention_dim
        shapes = {"prompt_embeds": (facts.text_tokens, width)}
        if family in {"sd3", "flux"}:
            shapes |= {"pooled": (config.pooled_projection_dim,), "guidance": ()}
        found = _empty(samples, shapes, like)
        if family in {"z_image", "qwen_image"}:
            found["tokens"] = torch.full([samples], facts.text_tokens)
        return found

    def _decode(self) -> None:
        components = self._model.components
        latents = torch.empty((1, *self._latents_shape), device=META, dtype=components.dtype)
        self._model.family.decode(components, latents).float()


def _empty(samples: int, shapes: dict[str, Any], like: dict[str, Any]) -> Conditioning:
    return {name: torch.empty((samples, *shape), **like) for name, shape in shapes.items()}


def quantised_like(layer: torch.nn.Linear, weight: GGUFParameter) -> QuantisedLinear:
    """A layer of these bytes in the place of a plain one, as ``engine.quantisation`` makes it."""
    sides, has_bias = (layer.in_features, layer.out_features), layer.bias is not None
    with META:
        made = QuantisedLinear(*sides, has_bias, compute_dtype=layer.weight.dtype)
    made.weight, made.bias = weight, layer.bias
    return made


def hold(module: torch.nn.Module, kind: str) -> QuantisedWeights:
    """Puts bytes of that type in the place of what is rounded at load."""
    names = [name for name, each in module.named_modules() if isinstance(each, torch.nn.Linear)]
    tensors, found = [], TYPE_BY_NAME[kind]
    for name in names:
        layer: Any = module.get_submodule(name)
        shape = layer_shape(layer)
        if rounded_at_load(f"{name}.weight", shape):
            tensors.append(StoredTensor(shape, found, 0))
            rows, columns = shape
            held = torch.empty((rows, found.bytes_of(columns)), dtype=torch.int8, device=META)
            weight = GGUFParameter(held, quant_type=gguf.GGMLQuantizationType(found.number))
            module.set_submodule(name, quantised_like(layer, weight))
    summed = held_quantised(tensors)
    assert summed is not None
    return replace(summed, at_load=kind == AT_LOAD)


def measured_cases() -> Iterator[Case]:
    """Of those that a GPU has measured, some; SDXL's decoder in float32 is not to be seen here."""
    for side, batch in product((512, 768, 1024), (1, 4)):
        yield Case("sd15", side, side, batch)
    yield Case("sdxl", 1024, 1024, unload=True)
    for model, batch in product(("sd15", "sdxl"), (1, 4)):
        side = 512 if model == "sd15" else 768
        yield Case(model, side, side, batch, "model_offload", "small_tiles")
    yield Case("sd15", 512, 512, 1, "group_offload", "small_tiles")
    for model, side, batch in product(("sd3", "sd35"), (768, 1536), (1, 2)):
        yield Case(model, side, side, batch, unload=True)


def unmeasured_cases() -> Iterator[Case]:
    """What no GPU has measured."""
    for model in ("flux2", "z_image", "qwen_image"):
        yield from new_family_cases(model)
    yield from quantised_cases()
    yield from controlnet_cases()


def new_family_cases(model: str) -> Iterator[Case]:
    for side in (512, 1024, 1536):
        yield Case(model, side, side, unload=True)
        yield Case(model, side, side, 2, "model_offload")
        yield Case(model, side, side, 1, "group_offload", "tiled")
    yield Case(model, 1024, 1024)
    for denoise in ("sequential_offload", "split_batch"):
        yield Case(model, 1024, 1024, 1, denoise, "tiled")
    for parts in (("text_encoder",), ("text_encoder", "transformer")):
        kinds = dict.fromkeys(parts, "q8_0")
        yield Case(model, 1024, 1024, 1, unload=True, kinds=kinds)
        yield Case(model, 1024, 1024, 1, "model_offload", kinds=kinds)
        yield Case(model, 1024, 1024, 1, "group_offload", "tiled", kinds=kinds)


def quantised_cases() -> Iterator[Case]:
    for kind in ("q4_k", "q5_1", "q8_0"):
        kinds = {"text_encoder_2": "q8_0", "transformer": kind}
        yield Case("flux", 1024, 1024, 1, "full", "full", unload=True, kinds=kinds)
        for denoise in ("model_offload", "group_offload", "sequential_offload"):
            yield Case("flux", 1024, 1024, 1, denoise, kinds=kinds)
    t5 = {"text_encoder_2": "q8_0"}
    for side, denoise in product((1024, 1536), ("model_offload", "group_offload")):
        yield Case("flux", side, side, 1, denoise, kinds=t5)
    exact: dict[str, str] = {}
    t5 = {"text_encoder_3": "q8_0"}
    for kinds in (exact, t5, {**t5, "transformer": "q4_0"}):  # 2432 are no blocks of 256
        yield Case("sd35-large", 1024, 1024, 1, unload=True, kinds=kinds)
        for denoise in ("model_offload", "group_offload"):
            yield Case("sd35-large", 1024, 1024, 1, denoise, kinds=kinds)


def controlnet_cases() -> Iterator[Case]:
    for count, side in product((1, 2, 3), (1024, 1536)):
        for denoise in ("full", "model_offload"):
            unload = denoise == "full"
            yield Case("sdxl", side, side, 1, denoise, "tiled", unload, controlnets=count)
    yield Case("sdxl", 1024, 1024, 4, "full", "tiled", unload=True, controlnets=3)
    yield Case("sdxl", 1024, 1024, 1, "group_offload", "tiled", controlnets=3)
    for count, side in product((1, 3), (512, 1024)):
        yield Case("sd15", side, side, 4, unload=True, controlnets=count)
        yield Case("sd15", side, side, 1, "group_offload", controlnets=count)


def row_of(case: Case, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A case and what it takes."""
    job = CountedJob(case)
    held = {name: asdict(each) for name, each in job.held.items()}
    return asdict(case) | {"held": held, "by_stage": job.run(monkeypatch)}


def main() -> None:
    groups = {"measured": measured_cases, "unmeasured": unmeasured_cases}
    versions = {name: version(name) for name in ("torch", "diffusers", "transformers", "gguf")}
    found: dict[str, Any] = {"command": "python -m support.counted_models", "versions": versions}
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, cases in groups.items():
            found[name] = []
            for case in cases():
                begun = time.monotonic()
                found[name].append(row_of(case, monkeypatch))
                sys.stdout.write(f"{case} {time.monotonic() - begun:.1f} s\n")
                sys.stdout.flush()
    COUNTED.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
