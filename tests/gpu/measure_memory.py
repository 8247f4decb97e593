"""Measures the device memory of real-size models with random weights on the GPU at hand.

``PYTHONPATH=service/src:tests python tests/gpu/measure_memory.py table --out FILE`` measures the
rungs one by one: the table that the planner is calibrated and tested with.
``… cards --out FILE`` plans jobs for simulated cards (a cap on torch's allocator) and runs them.

It works with the engine's own placement, policies and families. Each row is a job of two steps. ``enough_at`` is the smallest cap on
the process, as a share of the prediction, under which the job still ran.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from rockiln.domain.ladder import DecodeRung, DenoiseRung, Rungs
from rockiln.domain.memory import Workload, estimate
from rockiln.domain.model import DeviceFacts, ModelProfile
from rockiln.domain.plan import Plan, plan
from rockiln.engine.families import FAMILIES
from rockiln.engine.families.interface import Components, Conditioning
from rockiln.engine.loaded_model import LoadedModel
from rockiln.engine.placement import Placement
from rockiln.engine.policies import PolicySet
from rockiln.engine.rows import one_by_one
from rockiln.engine.torch_settings import apply_torch_settings
from rockiln.platforms.gpu import GpuDevice
from rockiln.platforms.selection import select
from support.known_models import CONFIGS, known_profile
from support.parameters import parameters

GIB = 1 << 30
STEPS = 2
TOKENS = 77
CAP_SHARES = (1.0, 1.05, 1.1, 1.2)
CARDS_GIB = (8, 12, 16, 20, 24)
CLASSES: dict[str, Any] = {
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
}


@dataclass(frozen=True)
class Case:
    """One row of the table. ``scores``: without fused attention, as on cards that lack it."""

    model: str
    width: int
    height: int
    batch: int
    denoise: str = "full"
    decode: str = "full"
    scores: bool = False
    unload: bool = False

    @property
    def rungs(self) -> Rungs:
        return Rungs(DenoiseRung(self.denoise), DecodeRung(self.decode))


def cases() -> Iterator[Case]:
    """Ordered so that cases of one placement follow each other."""
    sizes = {
        "sd15": [(512, 512), (512, 768), (768, 768), (1024, 1024)],
        "sdxl": [(768, 768), (1024, 1024), (1344, 768), (1536, 1536)],
    }
    for model, its_sizes in sizes.items():
        large = its_sizes[-1]
        for size in its_sizes:
            for batch in (1, 2, 4):
                yield Case(model, *size, batch)
        for size in its_sizes[1:]:
            yield Case(model, *size, 1, unload=True)
            for decode in ("tiled", "small_tiles"):
                yield Case(model, *size, 1, decode=decode, unload=True)
        for size in its_sizes[:3]:
            for batch in (1, 2):
                yield Case(model, *size, batch, denoise="sliced", scores=True, unload=True)
        yield Case(model, *its_sizes[0], 1, scores=True, unload=True)
        for size in its_sizes[:3]:
            if model == "sd15":
                yield Case(model, *size, 1, decode="other_dtype", unload=True)
        for denoise in ("model_offload", "group_offload", "sequential_offload", "split_batch"):
            for size in (its_sizes[0], its_sizes[1], large):
                for batch in (1, 4) if denoise == "model_offload" else (1,):
                    yield Case(model, *size, batch, denoise=denoise, decode="small_tiles")
        yield Case(model, *its_sizes[1], 1, denoise="model_offload")


def build(profile: ModelProfile, chosen: Plan, device: torch.device) -> LoadedModel:
    """A model with random weights, placed as the plan says."""
    modules: dict[str, Any] = {}
    torch.set_default_dtype(torch.float16)
    try:
        with torch.device(device):
            for part, config in CONFIGS[profile.id].items():
                kind = CLASSES[part]
                if part.startswith("text"):
                    module = kind(CLIPTextConfig(**config))
                else:
                    module = kind(**{k: v for k, v in config.items() if k != "force_upcast"})
                modules[part] = module.half().eval().requires_grad_(requires_grad=False)
    finally:
        torch.set_default_dtype(torch.float32)
    if chosen.decode_dtype is not None:
        modules["vae"].to(getattr(torch, chosen.decode_dtype))
    components = Components(modules, {}, {}, torch.float16, device)
    family = FAMILIES[profile.family]
    decode_device = torch.device("cpu") if chosen.decode_device == "cpu" else None
    placement = Placement(family, components, chosen.placement, decode_device)
    placement.settle()
    return LoadedModel(profile, "0" * 64, family, components, placement)


def run(
    model: LoadedModel, policies: PolicySet, chosen: Plan, case: Case, device: GpuDevice
) -> dict[str, Any]:
    """Stages of a job: peaks in bytes, seconds."""
    device.release_cache()
    torch.cuda.synchronize()
    allocated: dict[str, int] = {}
    reserved: dict[str, int] = {}
    seconds: dict[str, float] = {}
    components, family = model.components, model.family
    where = components.device

    def stage(name: Any, work: Any, *, alone: bool = False) -> Any:
        device.begin_stage()
        begun = time.monotonic()
        if model.placement.enter(name, alone=alone):
            device.release_cache()
        result = work()
        device.synchronise()
        seconds[name] = round(time.monotonic() - begun, 3)
        allocated[name] = torch.cuda.max_memory_allocated()
        reserved[name] = torch.cuda.max_memory_reserved()
        return result

    def encode() -> None:
        ids = torch.zeros((1, TOKENS), dtype=torch.long, device=where)
        for name, module in components.modules.items():
            if name.startswith("text"):
                for _ in range(2):
                    module(ids, output_hidden_states=True)

    samples = case.batch * 2

    def denoise() -> torch.Tensor:
        latents = torch.randn(
            (samples, 4, case.height // 8, case.width // 8), device=where, dtype=torch.float16
        )
        width = components.modules["unet"].config.cross_attention_dim
        conditioning: Conditioning = {
            "prompt_embeds": torch.randn(
                (samples, TOKENS, width), device=where, dtype=torch.float16
            )
        }
        if model.profile.family == "sdxl":
            conditioning["text_embeds"] = torch.randn((samples, 1280), device=where).half()
            conditioning["time_ids"] = torch.zeros((samples, 6), device=where).half()
        predict = partial(family.predict, components)
        if chosen.split_samples:
            predict = one_by_one(predict)  # type: ignore[assignment]
        for _ in range(STEPS):
            latents = predict(latents, torch.full((samples,), 500.0, device=where), conditioning)
            latents = latents / latents.std()
        return latents[:1].clone()

    policies.align(chosen)
    attention = sdpa_kernel(SDPBackend.MATH) if case.scores else nullcontext()
    with attention:
        stage("encode_prompt", encode)
        latents = stage("denoise", denoise)
        stage(
            "decode",
            lambda: (
                family.decode(components, latents.to(model.placement.decode_device)).float().cpu()
            ),
            alone=chosen.unload_before_decode,
        )
    return {
        "allocated": allocated,
        "reserved": reserved,
        "context_bytes": context_bytes(),
        "peak_bytes": context_bytes() + max(allocated.values()),
        "seconds": seconds,
    }


def plan_of(case: Case, profile: ModelProfile, facts: DeviceFacts) -> Plan:
    """The plan of exactly these rungs."""
    wanted = parameters(
        width=case.width, height=case.height, num_images=case.batch, model=profile.id
    )
    chosen = plan(wanted, profile, facts, remembered=case.rungs)
    assert chosen.rungs == case.rungs, (chosen.rungs, case)
    return replace(chosen, unload_before_decode=case.unload)


def table(device: GpuDevice) -> list[dict[str, Any]]:
    rows, key, model, policies = [], None, None, None
    for case in cases():
        profile = known_profile(case.model)
        facts = replace(device.facts, fused_attention_width=0) if case.scores else device.facts
        chosen = plan_of(case, profile, facts)
        wanted_key = (case.model, chosen.placement, chosen.decode_dtype)
        if wanted_key != key:
            model = policies = None
            device.release_cache()
            model = build(profile, chosen, device.torch_device)
            key, policies = wanted_key, PolicySet(model)
        assert model is not None
        assert policies is not None
        work = Workload(case.width, case.height, case.batch, "float16")
        predicted = estimate(profile, work, case.rungs, facts, unload_before_decode=case.unload)
        row = asdict(case) | run(model, policies, chosen, case, device)
        row["predicted_bytes"] = predicted.device_bytes
        row["enough_at"] = enough(
            lambda: run(model, policies, chosen, case, device),  # noqa: B023 (called at once)
            predicted.device_bytes,
        )
        rows.append(row)
        say(row)
    return rows


def enough(job: Callable[[], Any], predicted_bytes: int) -> float | None:
    """The smallest cap on this process, as a share of the prediction, under which the job runs.

    The allocator takes what it finds free and gives back under pressure, so that what it held
    without a cap says little; this is what the job needs.
    """
    total = torch.cuda.mem_get_info()[1]
    try:
        for share in CAP_SHARES:
            torch.cuda.empty_cache()
            cap = share * predicted_bytes - context_bytes()
            torch.cuda.set_per_process_memory_fraction(cap / total)
            with suppress(torch.OutOfMemoryError):
                job()
                return share
        return None
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def context_bytes() -> int:
    """What this process takes of the device beside torch's allocator."""
    free, total = torch.cuda.mem_get_info()
    return total - free - torch.cuda.memory_reserved()


def cards(device: GpuDevice) -> list[dict[str, Any]]:
    """Jobs on simulated cards, on the rungs that the planner chooses for them."""
    rows = []
    total = device.facts.total_bytes
    for gib in CARDS_GIB:
        card = device.reserve(total - gib * GIB)
        for name, sides in (("sd15", (512, 768, 1024)), ("sdxl", (1024,))):
            profile, key, model, policies = known_profile(name), None, None, None
            for side in sides:
                for batch in (1, 4):
                    case = Case(name, side, side, batch)
                    wanted = parameters(width=side, height=side, num_images=batch)
                    chosen = plan(wanted, profile, card.facts)
                    wanted_key = (chosen.placement, chosen.decode_dtype)
                    if wanted_key != key:
                        model = policies = None
                        device.release_cache()
                        torch.cuda.set_per_process_memory_fraction(1.0)
                        model = build(profile, chosen, device.torch_device)
                        key, policies = wanted_key, PolicySet(model)
                        device.release_cache()
                        card = device.reserve(total - gib * GIB)
                    assert model is not None
                    assert policies is not None
                    case = replace(
                        case, batch=min(batch, chosen.max_batch_rows), unload=chosen.unload_before_decode,
                        denoise=chosen.rungs.denoise.value, decode=chosen.rungs.decode.value,
                    )  # fmt: skip
                    row: dict[str, Any] = {"card_gib": gib, **asdict(case)}
                    row["predicted_bytes"] = chosen.predicted_bytes
                    try:
                        row |= run(model, policies, chosen, case, card)
                        row["outcome"] = "picture"
                    except torch.OutOfMemoryError as error:
                        row["outcome"] = f"out of memory: {str(error)[:200]}"
                    rows.append(row)
                    say(row)
    return rows


def say(row: dict[str, Any]) -> None:
    measured = row.get("peak_bytes", 0)
    off = (row["predicted_bytes"] / measured - 1) * 100 if measured else float("nan")
    words = [f"{row[k]}" for k in ("model", "width", "height", "batch", "denoise", "decode")]
    if "card_gib" in row:
        words = [f"{row['card_gib']} GiB card", *words, str(row["outcome"])]
    print(
        *words, "scores" if row["scores"] else "", "unload" if row["unload"] else "",
        f"measured {measured / GIB:.3f} predicted {row['predicted_bytes'] / GIB:.3f} {off:+.1f} %",
        {k: round(v / GIB, 3) for k, v in row.get("allocated", {}).items()},
        f"context {row.get('context_bytes', 0) / GIB:.3f} enough at {row.get('enough_at')}", row.get("seconds", ""), flush=True,
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["table", "cards"])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    device = select("cuda", "gpu", threads=8)
    assert isinstance(device, GpuDevice)
    apply_torch_settings("gpu", 8)
    torch.manual_seed(0)
    begun = time.monotonic()
    rows = table(device) if options.what == "table" else cards(device)
    result = {
        "command": f"python tests/gpu/measure_memory.py {options.what}",
        "hardware": asdict(device.facts),
        "versions": {
            **{name: version(name) for name in ("torch", "diffusers", "transformers")},
            **device.versions(),
        },
        "allocator": os.environ.get("PYTORCH_ALLOC_CONF", ""),
        "seconds": round(time.monotonic() - begun, 1),
        "rows": rows,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print("widest fused head", device.facts.fused_attention_width, result["seconds"], "s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
