"""Measures the device memory of real-size models with random weights on the GPU at hand.

``PYTHONPATH=service/src:tests python tests/gpu/measure_memory.py table --out FILE`` measures the
rungs one by one: the table that the planner is calibrated and tested with.
``… cards --out FILE`` plans jobs for simulated cards (a cap on torch's allocator) and runs them.

It works with the engine's own placement, policies and families. Each row is a job of two steps.
``enough_at`` is the smallest cap on the process, as a share of the prediction, under which the job
still ran: what it needs. Without a cap the allocator holds far more than that.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import T5EncoderModel

from rockiln.domain.ladder import DecodeRung, DenoiseRung, Rungs
from rockiln.domain.memory import Workload, estimate, guides_by_pairs
from rockiln.domain.model import DeviceFacts, ModelProfile, TransformerFacts
from rockiln.domain.plan import Plan, plan
from rockiln.engine.families.interface import Conditioning, Stage
from rockiln.engine.loaded_model import LoadedModel
from rockiln.engine.policies import PolicySet
from rockiln.engine.rows import one_by_one
from rockiln.engine.torch_settings import apply_torch_settings
from rockiln.platforms.gpu import GpuDevice
from rockiln.platforms.selection import select
from support.known_models import known_profile
from support.parameters import parameters
from support.random_models import build

GIB = 1 << 30
STEPS = 2
TOKENS = 77
CAP_SHARES = (1.0, 1.05, 1.1, 1.2)
CARDS_GIB = (8, 12, 16, 20, 24)


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


SIZES = {
    "sd15": [(512, 512), (512, 768), (768, 768), (1024, 1024)],
    "sdxl": [(768, 768), (1024, 1024), (1344, 768), (1536, 1536)],
    "sd3": [(768, 768), (1024, 1024), (1536, 1536)],
    "sd35": [(768, 768), (1024, 1024), (1536, 1536)],
    "flux": [(768, 768), (1024, 1024), (1536, 1536)],
}


def cases(models: Sequence[str]) -> Iterator[Case]:
    """Ordered so that cases of one placement follow each other."""
    for model in models:
        if model in {"sd15", "sdxl"}:
            yield from resident_cases(model)
            yield from offloaded_cases(model)
        else:
            yield from transformer_cases(model)


def transformer_cases(model: str) -> Iterator[Case]:
    for size, batch in itertools.product(SIZES[model], (1, 2)):
        yield Case(model, *size, batch, unload=True)
    yield Case(model, *SIZES[model][0], 1, scores=True, unload=True)
    for size in SIZES[model]:
        yield Case(model, *size, 1, denoise="model_offload", decode="small_tiles")
    for denoise, size in itertools.product(("group_offload", "sequential_offload"), SIZES[model]):
        yield Case(model, *size, 1, denoise=denoise, decode="small_tiles")


def resident_cases(model: str) -> Iterator[Case]:
    sizes = SIZES[model]
    for size, batch in itertools.product(sizes, (1, 2, 4)):
        yield Case(model, *size, batch)
    for size, decode in itertools.product(sizes[1:], ("full", "tiled", "small_tiles")):
        yield Case(model, *size, 1, decode=decode, unload=True)
    for size, batch in itertools.product(sizes[:3], (1, 2)):
        yield Case(model, *size, batch, denoise="sliced", scores=True, unload=True)
    yield Case(model, *sizes[0], 1, scores=True, unload=True)
    if model == "sd15":
        for size in sizes[:3]:
            yield Case(model, *size, 1, decode="other_dtype", unload=True)


def offloaded_cases(model: str) -> Iterator[Case]:
    sizes = [SIZES[model][0], SIZES[model][1], SIZES[model][-1]]
    for size, batch in itertools.product(sizes, (1, 4)):
        yield Case(model, *size, batch, denoise="model_offload", decode="small_tiles")
    yield Case(model, *sizes[1], 1, denoise="model_offload")
    rungs = ("group_offload", "sequential_offload", "split_batch")
    for denoise, size in itertools.product(rungs, sizes):
        yield Case(model, *size, 1, denoise=denoise, decode="small_tiles")


class Job:
    """One job on a model, stage by stage."""

    def __init__(self, model: LoadedModel, chosen: Plan, case: Case, device: GpuDevice) -> None:
        self._model, self._chosen, self._case, self._device = model, chosen, case, device
        self._where = model.components.device
        assert model.profile.architecture is not None
        self._facts = model.profile.architecture
        self.allocated: dict[str, int] = {}
        self.reserved: dict[str, int] = {}
        self.seconds: dict[str, float] = {}

    def run(self) -> dict[str, Any]:
        """Peaks in bytes, and seconds."""
        self._device.release_cache()
        torch.cuda.synchronize()
        with sdpa_kernel(SDPBackend.MATH) if self._case.scores else nullcontext():
            self._stage("encode_prompt", self._encode)
            latents = self._stage("denoise", self._denoise)
            self._stage(
                "decode", lambda: self._decode(latents), alone=self._chosen.unload_before_decode
            )
        return {
            "allocated": self.allocated,
            "reserved": self.reserved,
            "context_bytes": context_bytes(),
            "peak_bytes": context_bytes() + max(self.allocated.values()),
            "seconds": self.seconds,
        }

    def _stage(self, name: Stage, work: Callable[[], Any], *, alone: bool = False) -> Any:
        self._device.begin_stage()
        begun = time.monotonic()
        if self._model.placement.enter(name, alone=alone):
            self._device.release_cache()
        result = work()
        self._device.synchronise()
        self.seconds[name] = round(time.monotonic() - begun, 3)
        self.allocated[name] = torch.cuda.max_memory_allocated()
        self.reserved[name] = torch.cuda.max_memory_reserved()
        return result

    def _encode(self) -> None:
        encoders = [
            module
            for name, module in self._model.components.modules.items()
            if name.startswith("text")
        ]
        for module in [*encoders, *encoders]:  # a prompt and a negative one
            is_t5 = isinstance(module, T5EncoderModel)
            tokens = self._facts.text_encoders[-1].tokens if is_t5 else TOKENS
            ids = torch.zeros((1, tokens), dtype=torch.long, device=self._where)
            module(ids, output_hidden_states=not is_t5)

    def _denoise(self) -> torch.Tensor:
        case, components = self._case, self._model.components
        shape = self._facts.denoiser
        samples = case.batch * (2 if guides_by_pairs(known_profile(case.model)) else 1)
        like: dict[str, Any] = {"device": self._where, "dtype": torch.float16}
        channels = shape.latent_channels
        latents = torch.randn((samples, channels, case.height // 8, case.width // 8), **like)
        if isinstance(shape, TransformerFacts):
            config = components.modules["transformer"].config
            tokens, width = shape.text_tokens, config.joint_attention_dim
        else:
            tokens, width = TOKENS, shape.cross_attention_width
        conditioning: Conditioning = {
            "prompt_embeds": torch.randn((samples, tokens, width), **like)
        }
        if isinstance(shape, TransformerFacts):
            conditioning["pooled"] = torch.randn((samples, config.pooled_projection_dim), **like)
            conditioning["guidance"] = torch.full((samples,), 3.5, device=self._where)
        if case.model == "sdxl":
            conditioning["text_embeds"] = torch.randn((samples, 1280), **like)
            conditioning["time_ids"] = torch.zeros((samples, 6), **like)
        predict: Any = partial(self._model.family.predict, components)
        if self._chosen.split_samples:
            predict = one_by_one(predict)
        for _ in range(STEPS):
            timesteps = torch.full((samples,), 500.0, device=self._where)
            latents = predict(latents, timesteps, conditioning)
            latents = latents / latents.std()
        first: torch.Tensor = latents[:1].clone()
        return first

    def _decode(self, latents: torch.Tensor) -> None:
        placed = latents.to(self._model.placement.decode_device)
        self._model.family.decode(self._model.components, placed).float().cpu()


def plan_of(case: Case, profile: ModelProfile, facts: DeviceFacts) -> Plan:
    """The plan of exactly these rungs."""
    wanted = parameters(
        width=case.width, height=case.height, num_images=case.batch, model=profile.id
    )
    chosen = plan(wanted, profile, facts, remembered=case.rungs)
    assert chosen.rungs == case.rungs, (chosen.rungs, case)
    return replace(chosen, unload_before_decode=case.unload)


class Bench:
    """Keeps the model of the last case while the next one can use it as it lies."""

    def __init__(self, device: GpuDevice) -> None:
        self._device = device
        self._key: Any = None
        self._model: LoadedModel | None = None
        self._policies: PolicySet | None = None

    def job(self, case: Case, chosen: Plan) -> Job:
        key = (case.model, chosen.placement, chosen.decode_dtype, chosen.decode_device)
        if self._model is None or self._policies is None or key != self._key:
            self._model = self._policies = None
            self._device.release_cache()
            self._model = build(known_profile(case.model), chosen, self._device.torch_device)
            self._key, self._policies = key, PolicySet(self._model)
        self._policies.align(chosen)
        return Job(self._model, chosen, case, self._device)


def table(device: GpuDevice, models: Sequence[str]) -> list[dict[str, Any]]:
    rows, bench = [], Bench(device)
    for case in cases(models):
        profile = known_profile(case.model)
        facts = replace(device.facts, fused_attention_width=0) if case.scores else device.facts
        chosen = plan_of(case, profile, facts)
        predicted = estimate(
            profile,
            Workload(case.width, case.height, case.batch, "float16", guides_by_pairs(profile)),
            case.rungs,
            facts,
            unload_before_decode=case.unload,
        )
        row = asdict(case) | bench.job(case, chosen).run()
        row["predicted_bytes"] = predicted.device_bytes
        row["enough_at"] = enough(bench.job(case, chosen).run, predicted.device_bytes)
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
    rows, bench = [], Bench(device)
    asked = [("sd15", 512), ("sd15", 768), ("sd15", 1024), ("sdxl", 1024)]
    for gib, (name, side), batch in itertools.product(CARDS_GIB, asked, (1, 4)):
        facts = replace(device.facts, reserved_bytes=device.facts.total_bytes - gib * GIB)
        wanted = parameters(width=side, height=side, num_images=batch)
        chosen = plan(wanted, known_profile(name), facts)
        case = Case(
            name,
            side,
            side,
            min(batch, chosen.max_batch_rows),
            denoise=chosen.rungs.denoise.value,
            decode=chosen.rungs.decode.value,
            unload=chosen.unload_before_decode,
        )
        row = {"card_gib": gib, **asdict(case), "predicted_bytes": chosen.predicted_bytes}
        job = bench.job(case, chosen)
        device.release_cache()
        device.reserve(facts.reserved_bytes)
        try:
            row |= job.run() | {"outcome": "picture"}
        except torch.OutOfMemoryError as error:
            row["outcome"] = f"out of memory: {error}"[:200]
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        rows.append(row)
        say(row)
    return rows


def say(row: dict[str, Any]) -> None:
    """A line for whoever waits."""
    measured, predicted = row.get("peak_bytes", 0), row["predicted_bytes"]
    off = (predicted / measured - 1) * 100 if measured else float("nan")
    shown = ("card_gib", "model", "width", "height", "batch", "denoise", "decode", "scores",
             "unload", "outcome", "enough_at", "seconds")  # fmt: skip
    words = " ".join(f"{name}={row[name]}" for name in shown if row.get(name))
    sys.stdout.write(
        f"{words} measured {measured / GIB:.3f} predicted {predicted / GIB:.3f} {off:+.1f} %\n"
    )
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["table", "cards"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=list(SIZES), help="of the table")
    options = parser.parse_args()
    device = select("cuda", "gpu", threads=8)
    assert isinstance(device, GpuDevice)
    apply_torch_settings("gpu", 8)
    torch.manual_seed(0)
    begun = time.monotonic()
    rows = table(device, options.models) if options.what == "table" else cards(device)
    result = {
        "command": f"python tests/gpu/measure_memory.py {' '.join(sys.argv[1:])}",
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
