"""Time of a whole request against bare diffusers, memory, and answers while the worker is busy."""

from __future__ import annotations

import os
import statistics
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import torch
from diffusers import StableDiffusionPipeline

from benchmarks.result import Figure, Result
from support.service import Service

MODELS = Path(__file__).resolve().parents[1] / "models"
REQUEST = {"prompt": "a red boat on a lake at sunset, snowy mountains"}
LIVEZ_CALLS = 400


def measure(*, model: str, pairs: int) -> Result:
    """Runs everything against one service. The two sides of a ratio take turns."""
    threads = os.cpu_count() or 1
    torch.set_num_threads(threads)
    with (
        TemporaryDirectory() as folder,
        Service(
            Path(folder) / "data", MODELS, torch_threads=threads, default_model=model
        ) as service,
    ):
        defaults = next(
            entry["defaults"]
            for entry in service.get("/models").json()["models"]
            if entry["id"] == model
        )
        idle = _memory(service)
        whole, bare = _against_bare_diffusers(service, MODELS / model, defaults, pairs)
        after = _memory(service)
        livez = _livez_while_busy(service)
    ratios = [ours / theirs for ours, theirs in zip(whole, bare, strict=True)]
    size = f"{defaults['width']}x{defaults['height']}, {defaults['num_inference_steps']} steps"
    return Result(
        benchmark="first_picture",
        figures=[
            Figure(f"whole request, {size}", "s", whole, bound=3.0),
            Figure("bare diffusers call, same settings", "s", bare),
            Figure("whole request ÷ bare diffusers, pair by pair", "", ratios, bound=1.10),
            Figure("api memory, idle (PSS)", "MB", [idle["api"]], bound=150),
            Figure(f"worker memory with {model} (PSS)", "MB", [after["worker"]], bound=1500),
            Figure("/livez while the worker is busy", "ms", livez),
            Figure("/livez while the worker is busy, p99", "ms", [_p99(livez)], bound=50),
        ],
    )


def _against_bare_diffusers(
    service: Service, folder: Path, defaults: dict[str, Any], pairs: int
) -> tuple[list[float], list[float]]:
    pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    settings = {name: value for name, value in defaults.items() if name != "scheduler"}
    whole, bare = [], []
    for number in range(pairs + 1):
        started = time.perf_counter()
        answer = service.post(json={**REQUEST, "seed": number})
        middle = time.perf_counter()
        answer.raise_for_status()
        pipeline(**REQUEST, **settings, generator=torch.Generator().manual_seed(number)).images[
            0
        ].save(os.devnull, format="png")
        ended = time.perf_counter()
        if number:  # the first pair warms both
            whole.append(middle - started)
            bare.append(ended - middle)
    return whole, bare


def _memory(service: Service) -> dict[str, float]:
    """Proportional set size, MB of 10^6 bytes: shared pages count once over the processes."""
    supervisor = service.engine().parent()
    groups = {
        "api": service.processes("gunicorn"),
        "worker": [service.engine(), *([supervisor] if supervisor else [])],
    }
    return {
        name: sum(process.memory_full_info().pss for process in processes) / 1e6
        for name, processes in groups.items()
    }


def _livez_while_busy(service: Service) -> list[float]:
    stop = threading.Event()

    def keep_busy() -> None:
        while not stop.is_set():
            service.post(json=REQUEST)

    busy = threading.Thread(target=keep_busy)
    busy.start()
    milliseconds = []
    with httpx.Client(base_url=service.url) as client:
        for _ in range(LIVEZ_CALLS):
            started = time.perf_counter()
            client.get("/livez").raise_for_status()
            milliseconds.append((time.perf_counter() - started) * 1e3)
            time.sleep(0.01)
    stop.set()
    busy.join()
    return milliseconds


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]
