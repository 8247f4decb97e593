"""Jobs on simulated cards, done by the shipped service in process mode.

``PYTHONPATH=service/src:tests python tests/gpu/measure_cards.py --out FILE`` writes models of real
size with random weights, runs ``rockiln serve`` once for each card and sends it jobs. All of the
GPU but the card's size is reserved (``reserved_vram_bytes``): the planner plans without it, and the
engine's allocator is held to the rest. Supervisor, engine, store and api are the shipped ones.

Each row is a job: what was predicted, what its stages took at most, on which rungs, and whether an
attempt ran out of memory. A model leaves memory before the next one comes, so that a row is its
job's alone. ``--tiny`` is the same with tiny models on the CPU, to try the tool.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from PIL import Image

from rockiln.registry.revision import revision
from support.known_models import FAMILY
from support.real_size import TINY
from support.service import Service, eventually

GIB = 1 << 30
CARDS_GIB = (8, 12, 16, 20, 24, 32, 48)
STEPS = 2
JOB_SECONDS = 300.0
# A model of FLUX's size takes 36 GB of the host while a card too small for it has it offloaded.
LARGE, LARGE_AT_ONCE = {"flux"}, threading.Semaphore(2)
# Model → (width, height, pictures) of its jobs.
JOBS = {
    "sd15": [(512, 512, 1), (512, 768, 2), (768, 768, 4), (1024, 1024, 1)],
    "sdxl": [(768, 768, 1), (1024, 1024, 1), (1024, 1024, 4), (1536, 1536, 1)],
    "sd3": [(768, 768, 1), (1024, 1024, 1), (1024, 1024, 2)],
    "sd35": [(1024, 1024, 1), (1536, 1536, 1)],
    "flux": [(768, 768, 1), (1024, 1024, 1), (1536, 1536, 1)],
}
# Likewise, with so many ControlNets.
CONTROLLED = {
    "sd15": [(512, 512, 1, 1), (1024, 1024, 1, 1), (768, 768, 1, 3)],
    "sdxl": [(1024, 1024, 1, 1), (1024, 1024, 1, 2), (1024, 1024, 1, 3)],
}
CONTEXT_PROGRAM = """
import torch
from torch.nn import functional
x = torch.randn(2, 64, 64, 64, dtype=torch.float16, device="cuda")
x = functional.conv2d(x, torch.randn(64, 64, 3, 3, dtype=torch.float16, device="cuda"))
functional.scaled_dot_product_attention(x, x, x).flatten(1) @ x.flatten(1).T
torch.cuda.synchronize()
free, total = torch.cuda.mem_get_info()
print(total, total - free - torch.cuda.memory_reserved())
"""


def write_models(folder: Path, names: Sequence[str], *, tiny: bool) -> None:
    """Side by side; the first of those with the large text encoder before the others."""

    def write(name: str) -> None:
        if tiny:
            TINY[FAMILY[name]](folder / name)
            if name in CONTROLLED:
                unet = UNet2DConditionModel.from_pretrained(folder / name / "unet")
                ControlNetModel.from_unet(unet).save_pretrained(folder / "controlnets" / name)
            return
        command = [sys.executable, "-m", "support.real_size", str(folder / name), name]
        subprocess.run(command, check=True)

    begun = time.monotonic()
    first = [name for name in ("sd15", "sdxl", "sd3") if name in names]
    for wave in (first, [name for name in names if name not in first]):
        with ThreadPoolExecutor() as pool:
            list(pool.map(write, wave))
    for name in CONTROLLED.keys() & names:
        for place in (2, 3):
            first_net = folder / "controlnets" / name
            shutil.copytree(first_net, f"{first_net}-{place}", copy_function=os.link)
    say(f"wrote {', '.join(names)} in {time.monotonic() - begun:.0f} s")


def gpu_bytes() -> tuple[int, int]:
    """Of the whole GPU, and what a process takes beside torch's allocator; nobody else is on it."""
    told = subprocess.run(
        [sys.executable, "-c", CONTEXT_PROGRAM], check=True, capture_output=True, text=True
    ).stdout.split()
    return int(told[0]), int(told[1])


class Card:
    """A service that has a card of ``gib`` GiB, or the CPU where ``total_bytes`` is 0."""

    def __init__(
        self, work: Path, gib: int, total_bytes: int, context_bytes: int, asked: dict[str, str]
    ) -> None:
        self.gib, self._context_bytes = gib, context_bytes
        data = work / f"card-{gib}"
        if data.exists():
            shutil.rmtree(data)  # what a run before has learnt is not to help
        shutil.copytree(work / "cache", data / "cache")
        settings: dict[str, Any] = {"torch_threads": 4, "model_idle_seconds": 0.5, **asked}
        if total_bytes:
            settings |= {
                "backend": "cuda",
                "compute_device": "gpu",
                "reserved_vram_bytes": total_bytes - gib * GIB,
            }
        self.service = Service(data, work / "models", default_model="sd15", **settings)

    def rows(self, models: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Of each job; refused ones included."""
        eventually(self._empty, "the model of the proof leaves memory")
        for model in models:
            with LARGE_AT_ONCE if model in LARGE else nullcontext():
                plain = [(*job, 0) for job in JOBS[model]]
                for width, height, pictures, nets in [*plain, *CONTROLLED.get(model, ())]:
                    asked = {"model": model, "width": width, "height": height}
                    asked["num_images"] = pictures
                    row = {"card_gib": self.gib, **asked, "controlnets": nets}
                    asked["controlnets"] = [
                        {"name": name, "image": grey(width, height)}
                        for name in (model, f"{model}-2", f"{model}-3")[:nets]
                    ]
                    row |= self._done(asked)
                    say_row(row)
                    yield row
                eventually(self._empty, f"{model} leaves memory")

    def _empty(self) -> bool:
        workers = self.service.get("/system").json()["workers"]
        return not any(worker["health"].get("models") for worker in workers)

    def _done(self, asked: dict[str, Any]) -> dict[str, Any]:
        body = {**asked, "prompt": "a boat", "seed": 1, "num_inference_steps": STEPS}
        answer = self.service.post(json=body, headers={"Prefer": "respond-async"})
        if answer.status_code != httpx.codes.ACCEPTED:
            return {"outcome": "refused", "detail": answer.json()["detail"]}
        job = self.service.wait_for(answer.json()["id"], "done", "failed", seconds=JOB_SECONDS)
        row: dict[str, Any] = {
            "outcome": "picture" if job["state"] == "done" else "failed",
            "faults": [f"{each['reason']} at {each['stage']}" for each in job["attempts"]],
            "seconds": job["seconds"]["running"],
        }
        if job["failure"]:
            return {**row, "detail": job["failure"]["detail"][:300]}
        plan = job["pictures"][0]["details"]["plan"]
        peaks = self._peaks(job["id"])
        return row | {
            "batch": min(asked["num_images"], plan["max_batch_rows"]),
            **plan["rungs"],
            "unload": plan["unload_before_decode"],
            "predicted_bytes": plan["predicted_bytes"],
            "allocated": peaks,
            "context_bytes": self._context_bytes,
            "peak_bytes": max(peaks.values(), default=0) + self._context_bytes,
        }

    def _peaks(self, job_id: str) -> dict[str, int]:
        """Stage → the most that torch's allocator had in use in it, over all pictures."""
        peaks: dict[str, int] = {}
        for event in self.service.get(f"/jobs/{job_id}/events?limit=1000").json()["events"]:
            for stage, size in event["payload"].get("peak_bytes", {}).items():
                peaks[stage] = max(peaks.get(stage, 0), size)
        return peaks


def measure(  # noqa: PLR0917 (all of one run)
    work: Path,
    cards: Sequence[int],
    models: Sequence[str],
    asked: dict[str, str],
    gpu: tuple[int, int],
    keep: Callable[[dict[str, Any]], None],
) -> None:
    """Three cards at a time: each service is held to its own share of the GPU."""
    with ThreadPoolExecutor() as pool:
        # A model's digest is made once, not once for each card.
        list(pool.map(lambda name: revision(work / "models" / name, work / "cache"), models))

    def one(gib: int) -> None:
        begun = time.monotonic()
        card = Card(work, gib, *gpu, asked)
        with card.service:
            for row in card.rows(models):
                keep(row)
        say(f"{gib} GiB: {time.monotonic() - begun:.0f} s")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(one, cards))


def grey(width: int, height: int) -> str:
    """A picture for a request."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), (128, 128, 128)).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def say_row(row: dict[str, Any]) -> None:
    """A line for whoever waits."""
    words = " ".join(f"{name}={row[name]}" for name in row if name not in {"allocated", "detail"})
    measured, predicted = row.get("peak_bytes"), row.get("predicted_bytes", 0)
    say(f"{words} {predicted / measured - 1:+.1%}" if measured else f"{words} {row.get('detail')}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cards", type=int, nargs="+", default=list(CARDS_GIB), help="GiB each")
    parser.add_argument("--models", nargs="+", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--work", type=Path, help="folder to write to, kept; models in it are used")
    parser.add_argument("--setting", action="append", default=[], help="NAME=VALUE of the service")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    settings = dict(each.split("=", maxsplit=1) for each in options.setting)
    gpu = (0, 0) if options.tiny else gpu_bytes()
    result: dict[str, Any] = {
        "command": f"python tests/gpu/measure_cards.py {' '.join(sys.argv[1:])}",
        "hardware": "CPU" if options.tiny else torch.cuda.get_device_name(),
        "total_bytes": gpu[0],
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers")},
        "rows": [],
    }
    lock = threading.Lock()

    def keep(row: dict[str, Any]) -> None:
        with lock:
            result["rows"].append(row)
            options.out.write_text(json.dumps(result, indent=1) + "\n")

    with TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        (work / "models").mkdir(parents=True, exist_ok=True)
        absent = [name for name in options.models if not (work / "models" / name).exists()]
        write_models(work / "models", absent, tiny=options.tiny)
        measure(work, options.cards, options.models, settings, gpu, keep)
    return 0


if __name__ == "__main__":
    sys.exit(main())
