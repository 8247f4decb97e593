"""Two benchmarks of models in a running service: what a load takes, and what a switch takes."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.result import Figure, Result
from support.service import Service
from support.sized_model import make_sized_model

_READ_BYTES = 16 << 20


def measure_load(*, runs: int, size: str) -> Result:
    """Load of a model whose files the page cache holds, against reading these files once.

    The load is the ``load`` stage of the first job that asks for the model: from the check of its
    files to weights on the device. Turn by turn, each turn in a fresh engine.
    """
    with TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        model = make_sized_model(models / "large", size)
        make_sized_model(models / "small", "tiny")
        reads, loads, first = [], [], 0.0
        for number in range(runs + 1):
            read = read_once(model)
            data = Path(folder) / "data"
            with Service(data, models, torch_threads=0, default_model="small") as service:
                load = _draw(service, "large")["load"]
            if number:
                reads.append(read)
                loads.append(load)
            else:  # fills the page cache, and the cache of digests
                first = load
        gigabytes = sum(path.stat().st_size for path in model.rglob("*")) / 1e9
    ratios = [load / read for load, read in zip(loads, reads, strict=True)]
    return Result(
        benchmark="load",
        figures=[
            Figure(f"reading {gigabytes:.1f} GB once, from the page cache", "s", reads),
            Figure("load to ready for the first job", "s", loads),
            Figure("load ÷ read, turn by turn", "", ratios, bound=1.3),
            Figure("the very first load, which also makes the digest", "s", [first]),
        ],
    )


def measure_switch(*, runs: int, size: str) -> Result:
    """Jobs of two models in turn, both in memory: what the switch adds to a job."""
    with TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        one = make_sized_model(models / "one", size)
        shutil.copytree(one, models / "two")
        with Service(
            Path(folder) / "data", models, torch_threads=0, default_model="one"
        ) as service:
            engine = service.engine().pid
            for model in ("one", "two"):
                _draw(service, model)
            switched = [_draw(service, ("one", "two")[number % 2]) for number in range(2 * runs)]
            stayed = [_draw(service, "two") for _ in range(2 * runs)]
            restarted = service.engine().pid != engine
    if restarted:
        raise RuntimeError("the engine was replaced: the two models do not fit this device")
    return Result(
        benchmark="switch",
        figures=[
            Figure("load stage of a job after a switch", "s", [j["load"] for j in switched], 1.0),
            Figure("whole job after a switch", "s", [j["running"] for j in switched]),
            Figure("whole job of the same model again", "s", [j["running"] for j in stayed]),
        ],
    )


def _draw(service: Service, model: str) -> dict[str, Any]:
    """Seconds of one small picture: its stages, and ``running``."""
    side = max(128, service.get(f"/models/{model}").json()["sides"]["min_px"])
    job_id = service.submit(
        prompt="a boat", model=model, seed=1, num_inference_steps=1, width=side, height=side
    )
    job = service.wait_for(job_id, "done", "failed", seconds=600)
    if job["failure"]:
        raise RuntimeError(f"{job['failure']}")
    return {**job["pictures"][0]["seconds"], "running": job["seconds"]["running"]}


def read_once(folder: Path) -> float:
    """Seconds to read all weights of a model folder through one buffer."""
    buffer = bytearray(_READ_BYTES)
    started = time.perf_counter()
    for path in sorted(folder.rglob("*.safetensors")):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            while os.readv(descriptor, [buffer]):
                pass
        finally:
            os.close(descriptor)
    return time.perf_counter() - started
