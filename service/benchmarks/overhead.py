"""What a call costs beyond the engine's own time: queue, store, processes, encoding, HTTP."""

from __future__ import annotations

import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from benchmarks.result import Figure, Result
from support.service import Service

MODELS = Path(__file__).resolve().parents[1] / "models"
REQUEST = {"prompt": "a red boat on a lake", "num_inference_steps": 1}
WARMING_CALLS = 2
ENGINES_OWN = ("load", "encode_prompt", "encode_image", "prepare_latents", "denoise", "decode")


def measure(*, model: str, side: int, calls: int) -> Result:
    """Calls one after the other, over one connection on loopback."""
    whole, own, encoding, latents = [], [], [], []
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
            started = time.perf_counter()
            answer = client.post("/generate", json=body)
            seconds = time.perf_counter() - started
            answer.raise_for_status()
            job = client.get(answer.headers["Content-Location"]).json()
            stages = job["pictures"][0]["seconds"]
            if number >= WARMING_CALLS:
                whole.append(seconds)
                own.append(sum(stages.get(stage, 0.0) for stage in ENGINES_OWN))
                encoding.append(stages["postprocess"] * 1e3)
                latents.append(stages["store_latents"] * 1e3)
    beyond = [(all_of - engines) * 1e3 for all_of, engines in zip(whole, own, strict=True)]
    rest = [a - b - c for a, b, c in zip(beyond, encoding, latents, strict=True)]
    return Result(
        benchmark="overhead",
        figures=[
            Figure(f"whole request, {side}x{side}, 1 step", "s", whole),
            Figure("engine's own time: prompt, noise, denoising, decoding", "s", own),
            Figure("beyond it", "ms", beyond, bound=30.0),
            Figure("of that: PNG encoded and made durable", "ms", encoding),
            Figure("of that: latents made durable", "ms", latents),
            Figure("of that: queue, store, processes, HTTP", "ms", rest),
            Figure(
                "whole request ÷ engine's own time, call by call",
                "",
                [all_of / engines for all_of, engines in zip(whole, own, strict=True)],
            ),
        ],
    )
