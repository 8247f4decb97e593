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
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from rockiln.domain.model import DeviceFacts
from rockiln.engine.families.interface import Stage
from rockiln.engine.loans import Staging
from rockiln.engine.placement import PIECES
from rockiln.engine.policies import PolicySet
from rockiln.engine.weights_on_demand import WeightsOnDemand
from support.allocations import Allocations, fused_attention, held_bytes
from support.random_models import build, controlnets_beside
from support.real_jobs import Case, RealJob

COUNTED = Path(__file__).parents[1] / "fixtures" / "memory" / "counted.json"
META = torch.device("meta")
# A card that everything fits, so that the rungs are those that a case names.
CARD = DeviceFacts("gpu", "on paper", 1 << 40, 8, "cuda", "sm_90", 1 << 41)


class CountedJob:
    """One job, stage by stage."""

    def __init__(self, case: Case) -> None:
        self._case, self._chosen = case, case.chosen(CARD)
        settled = replace(self._chosen, placement="resident", decode_device="device")
        self._model = build(case.profile, settled, META)
        beside = controlnets_beside(self._model, settled)
        self._controlnets = [parts.components.modules["controlnet"] for parts in beside]
        self._work = RealJob(case, self._chosen, self._model, self._controlnets)
        PolicySet(self._model).align(self._chosen)
        self._staging: dict[Stage, Staging] = {}
        for stage, granularity in PIECES[self._chosen.placement].items():
            self._staging[stage] = Staging(META)
            for module in self._modules_of(stage):
                WeightsOnDemand(module, META, self._staging[stage], granularity)

    @property
    def _modules(self) -> list[Any]:
        return [*self._model.components.modules.values(), *self._controlnets]

    def run(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, int]]:
        """Stage → bytes of the weights on the device, and the most of other tensors at once."""
        works: dict[Stage, Callable[[], object]] = {
            "encode_prompt": self._work.encode,
            "denoise": self._work.denoise,
            "decode": self._decode,
        }
        found: dict[str, dict[str, int]] = {}
        for stage, work in works.items():
            with (
                torch.no_grad(),
                fused_attention(monkeypatch),
                Allocations(self._modules) as allocated,
            ):
                work()
            if stage in self._staging:
                self._staging[stage].release()
            weights = sum(map(held_bytes, self._on_device(stage)))
            found[stage] = {"weights": weights, "tensors": allocated.peak_bytes}
        return found

    def _on_device(self, stage: Stage) -> list[Any]:
        """As ``engine.placement`` has them; pieces are counted as they are made."""
        alone = stage == "decode" and self._case.unload
        if self._chosen.placement == "resident" and not alone:
            return self._modules
        return [] if stage in PIECES[self._chosen.placement] else self._modules_of(stage)

    def _modules_of(self, stage: Stage) -> list[Any]:
        beside = self._controlnets if stage == "denoise" else []
        return [*self._work.modules_of(stage), *beside]

    def _decode(self) -> None:
        self._work.decode(self._work.latents(1))


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
    yield from text_encoder_cases()
    yield from quantised_cases()
    yield from controlnet_cases()


def new_family_cases(model: str) -> Iterator[Case]:
    for side in (512, 1024, 1536):
        yield Case(model, side, side, unload=True)
        yield Case(model, side, side, 2, "model_offload")
        yield Case(model, side, side, 1, "group_offload", "tiled")
    yield Case(model, 1024, 1024)
    for denoise in ("text_encoder_offload", "sequential_offload", "split_batch"):
        yield Case(model, 1024, 1024, 1, denoise, "tiled")
    for parts in (("text_encoder",), ("text_encoder", "transformer")):
        kinds = dict.fromkeys(parts, "q8_0")
        yield Case(model, 1024, 1024, 1, unload=True, kinds=kinds)
        yield Case(model, 1024, 1024, 1, "model_offload", kinds=kinds)
        yield Case(model, 1024, 1024, 1, "group_offload", "tiled", kinds=kinds)


def text_encoder_cases() -> Iterator[Case]:
    """T5 in pieces."""
    rungs = ("text_encoder_offload", "group_offload", "sequential_offload")
    for model, side, denoise in product(("sd3", "sd35", "sd35-large", "flux"), (512, 1024), rungs):
        yield Case(model, side, side, 1, denoise, "small_tiles")


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
    for count, side in product((1, 3), (512, 1024)):
        yield Case("sd15", side, side, 4, unload=True, controlnets=count)
        yield Case("sd15", side, side, 1, "group_offload", controlnets=count)


def row_of(case: Case, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A case and what it takes."""
    held = {name: asdict(each) for name, each in case.profile.quantised.items()}
    return asdict(case) | {"held": held, "by_stage": CountedJob(case).run(monkeypatch)}


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
