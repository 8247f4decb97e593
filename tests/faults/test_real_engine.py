"""Kills at random moments with the real engine and vista, the model that ships."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
from faults.conftest import spread

from support.fault_bench import FAST
from support.service import Service

MODELS = Path(__file__).resolve().parents[2] / "service" / "models"
STEPS = 6


def test_kills_with_vista(
    tmp_path: Path, sizes: Callable[[int, int], int], figures: Callable[..., None]
) -> None:
    kills, chance = sizes(4, 100), random.Random(19)  # noqa: S311 (a seed that repeats)
    body = {"prompt": "a red boat on a lake", "seed": 5, "num_inference_steps": STEPS}
    settings = FAST | {"lease_seconds": 60, "queue_max_jobs": 1000}
    with Service(tmp_path / "data", MODELS, **settings) as service:
        expected = hashlib.sha256(service.post(json=body).content).hexdigest()
        jobs, recovered = [], []
        for _ in range(kills):
            jobs.append(service.submit(**body))
            engine = service.engine()
            # Somewhere from the model's load to the picture's file.
            time.sleep(chance.uniform(0.0, 4.0))
            with suppress(psutil.NoSuchProcess):
                service.kill(engine)
            died = time.monotonic()
            service.wait_ready()
            recovered.append(time.monotonic() - died)
        for job_id in jobs:
            service.wait_for(job_id, "done", seconds=300)
        pictures = [service.get(f"/jobs/{job_id}/artefacts/0").content for job_id in jobs]
    same = sum(hashlib.sha256(picture).hexdigest() == expected for picture in pictures)
    assert same == len(jobs)
    figures(kills=kills, done=len(jobs), same_picture=same, **spread(recovered))
