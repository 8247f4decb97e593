"""Loads of a model from the page cache, and switches between two, on the GPU at hand.

``PYTHONPATH=service:service/src:tests python tests/gpu/measure_load.py`` makes models of SD 1.5's
size with random weights and takes them through the engine's own shelf, turn by turn with reading
the same files once.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.models import read_once
from benchmarks.result import Figure, Result
from rockiln.domain.model import ModelProfile
from rockiln.domain.plan import plan
from rockiln.domain.residency import usual_parameters
from rockiln.engine.model_shelf import ModelShelf
from rockiln.engine.torch_settings import apply_torch_settings
from rockiln.platforms.interface import Device
from rockiln.platforms.selection import select
from support.engine_harness import read_profile
from support.sized_model import make_sized_model

THREADS = 8
TURNS = 5


def take(device: Device, shelf: ModelShelf, model: ModelProfile) -> float:
    """Seconds until the model is on the device."""
    chosen = plan(usual_parameters(model), model, device.facts)
    started = time.perf_counter()
    shelf.take(model, chosen)
    device.synchronise()
    return time.perf_counter() - started


def measure(work: Path) -> Result:
    folder = make_sized_model(work / "models" / "one", "sd15")
    shutil.copytree(folder, work / "models" / "two")
    models = read_profile(folder), read_profile(work / "models" / "two")
    device = select("rocm" if torch.version.hip else "cuda", "gpu", threads=THREADS)
    apply_torch_settings("gpu", THREADS)
    reads, loads = [], []
    for turn in range(TURNS + 1):
        read = read_once(folder)
        # A shelf of its own, where nothing stays: each turn loads anew.
        shelf = ModelShelf(device, work / "cache", idle_seconds=1e-9)
        load = take(device, shelf, models[0])
        shelf.use_pause()
        if turn:  # the first fills the page cache, and the cache of digests
            reads.append(read)
            loads.append(load)
    shelf = ModelShelf(device, work / "cache")
    for model in models:
        take(device, shelf, model)
    switches = [take(device, shelf, models[number % 2]) for number in range(2 * TURNS)]
    ratios = [load / read for load, read in zip(loads, reads, strict=True)]
    return Result(
        benchmark="load_on_gpu",
        command="python tests/gpu/measure_load.py",
        figures=[
            Figure("reading the files once, from the page cache", "s", reads),
            Figure("load onto the device", "s", loads),
            Figure("load ÷ read, turn by turn", "", ratios, bound=1.3),
            Figure("switch between two models in memory", "s", switches, bound=1.0),
        ],
    )


if __name__ == "__main__":
    with TemporaryDirectory() as scratch:
        sys.stdout.write(f"{measure(Path(scratch)).markdown()}\n")
