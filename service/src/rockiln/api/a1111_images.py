"""A1111's answers about pictures: the pictures with their ``info``, and how far they are."""

from __future__ import annotations

import base64
import io
import json
import time
from typing import Any

from pydantic import BaseModel, Field

from rockiln import __version__
from rockiln.api.documents import job_warnings
from rockiln.api.services import services
from rockiln.domain.job import RUNNING_STATES, WAITING_STATES, JobState
from rockiln.domain.sampling import A1111_NAMES
from rockiln.store.records import Job

_LISTED_JOBS = 200


class A1111Images(BaseModel):
    """Pictures in base64, the request, and everything about them."""

    images: list[str]
    parameters: dict[str, Any]
    info: str = Field(description="JSON as a text.")


class A1111Progress(BaseModel):
    """Where the picture in hand is."""

    progress: float
    eta_relative: float
    state: dict[str, Any]
    current_image: str | None
    textinfo: str | None
    current_task: str | None


def images_answer(job: Job, files: list[bytes], echo: dict[str, Any]) -> A1111Images:
    """The answer for a job that has ended; without pictures where it was interrupted."""
    return A1111Images(
        images=[base64.b64encode(content).decode("ascii") for content in files],
        parameters=echo,
        info=json.dumps(_info(job, [parameters_text(content) for content in files])),
    )


def parameters_text(picture: bytes) -> str:
    """The ``parameters`` of a PNG; empty where it has none."""
    from PIL import Image  # noqa: PLC0415 (the front starts without it)

    try:
        with Image.open(io.BytesIO(picture), formats=("PNG",)) as image:
            text = image.info.get("parameters", "")
    except (OSError, SyntaxError, ValueError):
        return ""
    return text if isinstance(text, str) else ""


def _info(job: Job, infotexts: list[str]) -> dict[str, Any]:
    used = job.parameters
    count = used.num_images
    seeds = [used.picture_seed(index) for index in range(count)]
    return {
        "prompt": used.prompt,
        "all_prompts": [used.prompt] * count,
        "negative_prompt": used.negative_prompt,
        "all_negative_prompts": [used.negative_prompt] * count,
        "seed": used.seed,
        "all_seeds": seeds,
        "subseed": -1,
        "all_subseeds": [-1] * count,
        "subseed_strength": 0,
        "width": used.width,
        "height": used.height,
        "sampler_name": A1111_NAMES.get(used.scheduler, (used.scheduler,))[0],
        "cfg_scale": used.guidance_scale,
        "steps": used.num_inference_steps,
        "batch_size": count,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": used.model,
        "sd_model_hash": "",
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": used.strength,
        "extra_generation_params": {"Rockiln job": job.id},
        "index_of_first_image": 0,
        "infotexts": infotexts,
        "styles": [],
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.gmtime(job.accepted_at)),
        "clip_skip": used.clip_skip,
        "is_using_inpainting_conditioning": False,
        "version": f"rockiln {__version__}",
        "comments": job_warnings(job),
    }


def current_job(owner: str) -> tuple[Job | None, int]:
    """The owner's job that runs, else the one that waits longest, and how many there are."""
    jobs = services().store.jobs
    running = _oldest_first(
        jobs.page(limit=_LISTED_JOBS, states=tuple(RUNNING_STATES), owner=owner)
    )
    waiting = _oldest_first(
        jobs.page(limit=_LISTED_JOBS, states=tuple(WAITING_STATES), owner=owner)
    )
    both = [job for job in (*running, *waiting) if job.purpose == "picture"]
    return (both[0] if both else None), len(both)


def _oldest_first(jobs: list[Job]) -> list[Job]:
    return jobs[::-1]


def progress_of(job: Job | None, count: int, *, with_image: bool) -> A1111Progress:
    """How far the job in hand is; nothing at all while there is none."""
    if job is None:
        return A1111Progress(
            progress=0.0, eta_relative=0.0, state=_state(None, 0, 0), current_image=None,
            textinfo=None, current_task=None,
        )  # fmt: skip
    steps = job.parameters.total_steps
    done = sum(min(picture.step, steps) for picture in job.pictures)
    share = done / max(1, steps * len(job.pictures))
    running = 0.0 if job.started_at is None else max(0.0, services().clock() - job.started_at)
    return A1111Progress(
        progress=round(share, 4),
        eta_relative=round(running / share - running if share else job.estimated_seconds, 1),
        state=_state(job, count, min(job.pictures[0].step, steps)),
        current_image=_preview(job) if with_image else None,
        textinfo="waiting" if job.state in WAITING_STATES else job.state.value,
        current_task=job.id,
    )


def _preview(job: Job) -> str | None:
    for picture in job.pictures:
        if picture.state != JobState.PUBLISHED:
            path = services().store.artefacts.preview_path(job.id, picture.index)
            try:
                return base64.b64encode(path.read_bytes()).decode("ascii")
            except FileNotFoundError:
                return None
    return None


def _state(job: Job | None, count: int, step: int) -> dict[str, Any]:
    at = 0.0 if job is None else job.accepted_at
    return {
        "skipped": False,
        "interrupted": job is not None and job.cancel_requested,
        "stopping_generation": False,
        "job": "" if job is None else job.id,
        "job_count": count,
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.gmtime(at)),
        "job_no": 0,
        "sampling_step": step,
        "sampling_steps": 0 if job is None else job.parameters.total_steps,
    }
