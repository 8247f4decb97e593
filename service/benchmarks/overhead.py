"""What a call costs beyond the engine's own time: queue, store, processes, encoding, HTTP."""

from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from benchmarks.result import Figure, Result
from support.service import Service

MODELS = Path(__file__).resolve().parents[1] / "models"
REQUEST = {"prompt": "a red boat on a lake", "num_inference_steps": 1}
WARMING_CALLS = 2
ENGINES_OWN = ("load", "encode_prompt", "encode_image", "prepare_latents", "denoise", "decode")
BEYOND = "beyond it"
PARTS = (
    "of that: PNG encoded and made durable",
    "of that: latents made durable",
    "of that: sent, read, checked",
    "of that: accepted on disk, taken by a worker",
    "of that: between worker and engine, published",
    "of that: the caller woken, answered",
)


def measure(*, model: str, side: int, calls: int) -> Result:
    """Calls one after the other, over one connection on loopback."""
    whole, own = [], []
    beyond: dict[str, list[float]] = {name: [] for name in (BEYOND, *PARTS)}
    threads = max(1, (os.cpu_count() or 1) - 1)  # the engine at work leaves room for the rest
    with (
        TemporaryDirectory() as folder,
        Service(
            Path(folder) / "data", MODELS, torch_threads=threads, default_model=model
        ) as service,
        httpx.Client(base_url=service.url, timeout=300) as client,
    ):
        for number in range(calls + WARMING_CALLS):
            body = {**REQUEST, "width": side, "height": side, "seed": number}
            begun, started = time.time(), time.perf_counter()
            answer = client.post("/generate", json=body)
            seconds = time.perf_counter() - started
            answer.raise_for_status()
            if number < WARMING_CALLS:
                continue
            href = answer.headers["Content-Location"]
            stages = client.get(href).json()["pictures"][0]["seconds"]
            whole.append(seconds)
            own.append(sum(stages.get(stage, 0.0) for stage in ENGINES_OWN))
            log = client.get(f"{href}/events").json()["events"]
            parts = _parts(stages, _times(log), begun, seconds, own[-1])
            for name, part in zip(beyond, (seconds - own[-1], *parts), strict=True):
                beyond[name].append(part * 1e3)
    return Result(
        benchmark="overhead",
        figures=[
            Figure(f"whole request, {side}x{side}, 1 step", "s", whole),
            Figure("engine's own time: prompt, noise, denoising, decoding", "s", own),
            *(
                Figure(name, "ms", values, bound=30.0 if name is BEYOND else None)
                for name, values in beyond.items()
            ),
            Figure(
                "whole request ÷ engine's own time, call by call",
                "",
                [all_of / engines for all_of, engines in zip(whole, own, strict=True)],
            ),
        ],
    )


def _times(log: list[dict[str, Any]]) -> dict[str, float]:
    """Kind of event → when it was logged, seconds since the epoch; before its commit."""
    return {event["kind"]: datetime.fromisoformat(event["at"]).timestamp() for event in log}


def _parts(
    stages: dict[str, float], at: dict[str, float], begun: float, seconds: float, own: float
) -> tuple[float, ...]:
    """Seconds of each of ``PARTS``."""
    encoding, latents = stages["postprocess"], stages["store_latents"]
    return (
        encoding,
        latents,
        at["accepted"] - begun,
        at["leased"] - at["accepted"],
        at["published"] - at["leased"] - own - encoding - latents,
        begun + seconds - at["published"],
    )
