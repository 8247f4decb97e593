"""Measures the device memory of real-size models with random weights on the GPU at hand.

``PYTHONPATH=service/src:tests python tests/gpu/measure_memory.py table --out FILE`` measures the
rungs one by one: the table that the planner is calibrated and tested with; ``… more`` likewise
FLUX.2, Z-Image and Qwen-Image, weights in few bits and ControlNets. Either takes ``--only
PATTERN …``: the cases in whose line, as it is told, one of these regular expressions is found.
``… cards --out FILE`` plans jobs for simulated cards (a cap on torch's allocator) and runs them.

It works with the engine's own placement, policies and families. Each row is a job of two steps, of
one where the denoiser is offloaded in pieces.
``enough_at`` is the smallest cap on the process, as a share of the prediction, under which the job
still ran: what it needs. Without a cap the allocator holds far more than that. Offloaded jobs of
transformers ran under the cap alone: their weights take long to move.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import re
import shlex
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

from rockiln.domain.memory import Workload, estimate, guides_by_pairs
from rockiln.domain.plan import Plan, plan
from rockiln.engine.families.interface import Stage
from rockiln.engine.loaded_model import LoadedModel, LoadedParts
from rockiln.engine.placement import enter_stage
from rockiln.engine.policies import PolicySet
from rockiln.engine.torch_settings import apply_torch_settings
from rockiln.platforms.gpu import GpuDevice
from rockiln.platforms.selection import select
from support.known_models import CONFIGS, known_profile
from support.parameters import parameters
from support.random_models import build, controlnets_beside
from support.real_jobs import Case as CountedCase
from support.real_jobs import RealJob

GIB = 1 << 30
STEPS = 2
CAP_SHARES = (1.0, 1.05, 1.1, 1.2)
CARDS_GIB = (8, 12, 16, 20, 24)
SMALL = {"sd15", "sdxl"}
NEW_FAMILIES = ("flux2", "z_image", "qwen_image")
IN_PIECES = ("group_offload", "sequential_offload")
# Told where others are on the GPU, too: all but torch's allocator then looks like this process's.
CONTEXT: list[int] = []


@dataclass(frozen=True)
class Case(CountedCase):
    """One row of the table. ``scores``: without fused attention, as on cards that lack it."""

    scores: bool = False


SIZES = {
    "sd15": [(512, 512), (512, 768), (768, 768), (1024, 1024)],
    "sdxl": [(768, 768), (1024, 1024), (1344, 768), (1536, 1536)],
    "sd3": [(768, 768), (1024, 1024), (1536, 1536)],
    "sd35": [(768, 768), (1024, 1024), (1536, 1536)],
    "sd35-large": [(768, 768), (1024, 1024), (1536, 1536)],
    "flux": [(768, 768), (1024, 1024), (1536, 1536)],
}


def cases(models: Sequence[str]) -> Iterator[Case]:
    """Ordered so that cases of one placement follow each other."""
    for model in [name for name in models if name in SIZES]:
        if model in SMALL:
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
    rungs = ("text_encoder_offload", *IN_PIECES)
    for denoise, size in itertools.product(rungs, SIZES[model]):
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
    rungs = ("text_encoder_offload", *IN_PIECES, "split_batch")
    for denoise, size in itertools.product(rungs, sizes):
        yield Case(model, *size, 1, denoise=denoise, decode="small_tiles")


def more_cases(models: Sequence[str]) -> Iterator[Case]:
    """Likewise, of what is counted beside: ``support.counted_models``."""
    for case in itertools.chain(controlnet_cases(), family_cases(), quantised_cases()):
        if case.model in models:
            yield case


def controlnet_cases() -> Iterator[Case]:
    for model, count in itertools.product(("sd15", "sdxl"), (1, 2, 3)):
        whole = partial(Case, model, controlnets=count)
        for size, batch in itertools.product(SIZES[model][:2], (1, 4)):
            yield whole(*size, batch)
        yield whole(*SIZES[model][-1], 1, decode="tiled", unload=True)
        for denoise in ("model_offload", *IN_PIECES):
            yield whole(*SIZES[model][1], 1, denoise, "small_tiles")


def family_cases() -> Iterator[Case]:
    for model in NEW_FAMILIES:
        for side, batch in ((512, 1), (1024, 1), (1024, 2), (1536, 1)):
            yield Case(model, side, side, batch)
        both = {"text_encoder": "q8_0", "transformer": "q8_0"}
        for kinds in (both, {"transformer": "q8_0"}):
            yield Case(model, 1024, 1024, kinds=kinds)
        for kinds in ({}, both):
            yield Case(model, 1024, 1024, 1, "model_offload", kinds=kinds)
            for denoise in ("text_encoder_offload", *IN_PIECES):
                yield Case(model, 1024, 1024, 1, denoise, "tiled", kinds=kinds)


def quantised_cases() -> Iterator[Case]:
    flux = {"text_encoder_2": "q8_0"}
    every = ("q8_0", "f8_e4m3", "q4_k", "q6_k", "q5_1", "q4_0", "q3_k", "iq4_nl")
    for side, kind in itertools.product((1024, 1536), every):
        yield Case("flux", side, side, kinds={**flux, "transformer": kind})
    for kind in ("q8_0", "f8_e4m3", "q4_k"):
        kinds = {**flux, "transformer": kind}
        yield Case("flux", 1024, 1024, 1, "model_offload", kinds=kinds)
        for denoise in ("text_encoder_offload", *IN_PIECES):
            yield Case("flux", 1024, 1024, 1, denoise, "tiled", kinds=kinds)
    large: dict[str, str] = {"text_encoder_3": "q8_0"}
    for kinds in ({}, large, {**large, "transformer": "q4_0"}, {**large, "transformer": "f8_e4m3"}):
        yield Case("sd35-large", 1024, 1024, kinds=kinds)
    for kinds in (large, {**large, "transformer": "q4_0"}):  # 2432 are no blocks of 256
        yield Case("sd35-large", 1024, 1024, 1, "model_offload", kinds=kinds)
        yield Case("sd35-large", 1024, 1024, 1, "group_offload", "tiled", kinds=kinds)


class Job:
    """One job on a model and the ControlNets beside it, stage by stage."""

    def __init__(
        self,
        parts: Sequence[LoadedParts],
        work: RealJob,
        chosen: Plan,
        device: GpuDevice,
        *,
        scores: bool,
    ) -> None:
        self._parts, self._work, self._chosen, self._device = parts, work, chosen, device
        self._scores = scores
        self.allocated: dict[str, int] = {}
        self.reserved: dict[str, int] = {}
        self.seconds: dict[str, float] = {}

    def run(self) -> dict[str, Any]:
        """Peaks in bytes, and seconds."""
        self._device.release_cache()
        torch.cuda.synchronize()
        steps = 1 if self._chosen.placement in IN_PIECES else STEPS
        with sdpa_kernel(SDPBackend.MATH) if self._scores else nullcontext():
            self._stage("encode_prompt", self._work.encode)
            latents = self._stage("denoise", lambda: self._work.denoise(steps))
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
        placements = [each.placement for each in self._parts]
        enter_stage(placements, name, self._device.release_cache, alone=alone)
        result = work()
        self._device.synchronise()
        self.seconds[name] = round(time.monotonic() - begun, 3)
        self.allocated[name] = torch.cuda.max_memory_allocated()
        self.reserved[name] = torch.cuda.max_memory_reserved()
        return result

    def _decode(self, latents: torch.Tensor) -> None:
        self._work.decode(latents.to(self._parts[0].placement.decode_device)).cpu()


class Bench:
    """Keeps the model of the last case while the next one can use it as it lies."""

    def __init__(self, device: GpuDevice) -> None:
        self._device = device
        self._key: Any = None
        self._model: LoadedModel | None = None
        self._policies: PolicySet | None = None
        self._beside: Sequence[LoadedParts] = ()

    def job(self, case: Case, chosen: Plan) -> Job:
        key = (case.model, case.kinds, case.controlnets, chosen.placement, chosen.decode_dtype,
               chosen.decode_device)  # fmt: skip
        if self._model is None or self._policies is None or key != self._key:
            self._model = self._policies = None
            self._beside = ()
            gc.collect()  # modules and their hooks refer to each other
            self._device.release_cache()
            self._model = build(case.profile, chosen, self._device.torch_device)
            self._beside = controlnets_beside(self._model, chosen)
            self._key, self._policies = key, PolicySet(self._model)
        self._policies.align(chosen)
        networks = [parts.components.modules["controlnet"] for parts in self._beside]
        work = RealJob(case, chosen, self._model, networks)
        return Job([self._model, *self._beside], work, chosen, self._device, scores=case.scores)


def table(device: GpuDevice, asked: Sequence[Case]) -> Iterator[list[dict[str, Any]]]:
    """The rows, again after each job: first without a cap, then held to the prediction.

    A convolution that found too little for its workspace under a cap keeps to a smaller one.
    """
    bench, rows, plans = Bench(device), [], {}
    for place, case in enumerate(asked):
        profile = case.profile
        facts = replace(device.facts, fused_attention_width=0) if case.scores else device.facts
        plans[place] = case.chosen(facts)
        predicted = estimate(
            profile,
            Workload(case.width, case.height, case.batch, profile.half, guides_by_pairs(profile)),
            case.rungs,
            facts,
            unload_before_decode=case.unload,
        ).device_bytes
        held = {name: asdict(each) for name, each in profile.quantised.items()}
        row = asdict(case) | {"held": held, "predicted_bytes": predicted}
        if plans[place].placement == "resident" or case.model in SMALL:
            row |= bench.job(case, plans[place]).run()
        rows.append(row)
        say(row)
        yield rows
    for (place, chosen), case, row in zip(plans.items(), asked, rows, strict=True):
        again, share = enough(bench.job(case, chosen).run, row["predicted_bytes"])
        rows[place] = again | row | {"enough_at": share}
        say(rows[place])
        yield rows


def enough(
    job: Callable[[], dict[str, Any]], predicted_bytes: int
) -> tuple[dict[str, Any], float | None]:
    """What the job said, and the smallest cap on this process under which it runs.

    The allocator takes what it finds free and gives back under pressure, so that what it held
    without a cap says little; this is what the job needs, as a share of the prediction.
    """
    total = torch.cuda.mem_get_info()[1]
    try:
        for share in CAP_SHARES:
            torch.cuda.empty_cache()
            cap = share * predicted_bytes - context_bytes()
            torch.cuda.set_per_process_memory_fraction(cap / total)
            with suppress(torch.OutOfMemoryError):
                return job(), share
        return {}, None
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def context_bytes() -> int:
    """What this process takes of the device beside torch's allocator."""
    if CONTEXT:
        return CONTEXT[0]
    free, total = torch.cuda.mem_get_info()
    return total - free - torch.cuda.memory_reserved()


def cards(device: GpuDevice) -> Iterator[list[dict[str, Any]]]:
    """Jobs on simulated cards, on the rungs that the planner chooses for them."""
    bench, rows = Bench(device), []
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
        yield rows


def say(row: dict[str, Any]) -> None:
    """A line for whoever waits."""
    measured, predicted = row.get("peak_bytes", 0), row["predicted_bytes"]
    off = (predicted / measured - 1) * 100 if measured else float("nan")
    sys.stdout.write(
        f"{words(row)} measured {measured / GIB:.3f} predicted {predicted / GIB:.3f} {off:+.1f} %\n"
    )
    sys.stdout.flush()


def words(row: dict[str, Any]) -> str:
    shown = ("card_gib", "model", "width", "height", "batch", "denoise", "decode", "scores",
             "unload", "controlnets", "kinds", "outcome", "enough_at", "seconds")  # fmt: skip
    return " ".join(f"{name}={row[name]}" for name in shown if row.get(name))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["table", "more", "cards"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=list(CONFIGS), choices=list(CONFIGS))
    parser.add_argument("--only", nargs="+", default=[""], metavar="PATTERN", help="see above")
    parser.add_argument("--context-bytes", type=int, nargs="*", default=[], help="see CONTEXT")
    options = parser.parse_args()
    CONTEXT.extend(options.context_bytes)
    device = select("cuda", "gpu", threads=8)
    assert isinstance(device, GpuDevice)
    apply_torch_settings("gpu", 8)
    torch.manual_seed(0)
    begun = time.monotonic()
    wanted = cases if options.what == "table" else more_cases
    asked = [
        case
        for case in wanted(options.models)
        if any(re.search(pattern, words(asdict(case))) for pattern in options.only)
    ]
    result: dict[str, Any] = {
        "command": f"python tests/gpu/measure_memory.py {shlex.join(sys.argv[1:])}",
        "hardware": asdict(device.facts),
        "versions": {
            **{name: version(name) for name in ("torch", "diffusers", "transformers")},
            **device.versions(),
        },
        "allocator": os.environ.get("PYTORCH_ALLOC_CONF", ""),
    }
    for rows in cards(device) if options.what == "cards" else table(device, asked):
        result["rows"] = rows
        result["seconds"] = round(time.monotonic() - begun, 1)
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
