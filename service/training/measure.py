"""Speed on this CPU, precision on this device: ``python -m training.measure WHAT``."""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from torch import Tensor

from training import card
from training.evaluate import held_out_prompts
from training.sampling import default_settings, generate, load_pipeline

_VERSIONS = {
    "torch": torch.__version__,
    "diffusers": diffusers.__version__,
    "transformers": transformers.__version__,
}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "an unnamed CPU"


def speed(folder: Path, runs: int, threads: int, sizes_px: list[tuple[int, int]]) -> dict[str, Any]:
    """Seconds per picture, text to pixels, model already loaded."""
    torch.set_num_threads(threads)
    pipeline = load_pipeline(folder, torch.device("cpu"))
    settings = default_settings(folder)
    sizes: dict[str, dict[str, float]] = {}
    for wide, high in sizes_px:
        sized = {**settings, "width": wide, "height": high}
        generate(pipeline, ["a lake at dawn"], [0], sized)
        taken, worked = [], []
        for run in range(runs):
            started, work = time.perf_counter(), time.process_time()
            generate(pipeline, ["a red house by a lake at dawn"], [run], sized)
            taken.append(time.perf_counter() - started)
            worked.append(time.process_time() - work)
        sizes[f"{wide}x{high}"] = {
            "median": round(statistics.median(taken), 3),
            "fastest": round(min(taken), 3),
            "slowest": round(max(taken), 3),
            "processor_seconds": round(statistics.median(worked), 3),
        }
    return {
        "threads": threads,
        "runs": runs,
        "load_average": round(os.getloadavg()[0], 1),
        "processor": _processor(),
        "versions": _VERSIONS,
        "sizes": sizes,
    }


def _difference(a: Tensor, b: Tensor) -> dict[str, float]:
    each = (a.float() - b.float()).abs().flatten(1).mean(dim=1)
    return {"mean": round(float(each.mean()), 6), "worst": round(float(each.max()), 6)}


@torch.no_grad()
def precision(folder: Path, device: torch.device, count: int) -> dict[str, Any]:
    """The same prompts and seeds in other arithmetic; the same latents decoded in tiles."""
    settings = default_settings(folder)
    prompts = [c.text for c in held_out_prompts(count)]
    seeds = list(range(count))
    whole = generate(load_pipeline(folder, device), prompts, seeds, settings)
    report: dict[str, Any] = {
        "pictures": count,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else _processor(),
        "versions": _VERSIONS,
    }
    for name, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
        other = generate(load_pipeline(folder, device, dtype), prompts, seeds, settings)
        report[name] = _difference(whole, other)
    pipeline = load_pipeline(folder, device)
    few = max(1, count // 4)
    large = {**settings, "width": 768, "height": 768}
    plain = generate(pipeline, prompts[:few], seeds[:few], large, 1)
    pipeline.vae.enable_tiling()
    report["tiled"] = _difference(plain, generate(pipeline, prompts[:few], seeds[:few], large, 1))
    return report


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("speed", "precision"))
    parser.add_argument("--model", type=Path, default=card.MODEL_FOLDER)
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 512], help="of squares, px")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    a = parser.parse_args(argv)
    if a.what == "speed":
        measured = speed(a.model, a.runs, a.threads, [(side, side) for side in a.sides])
    else:
        measured = precision(a.model, torch.device(a.device), a.pictures)
    card.store(a.model, a.what, measured)
    print(measured, flush=True)


if __name__ == "__main__":
    main()
