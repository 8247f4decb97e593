"""The row of a picture in each of its passes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from rockiln.engine.jobs import Job, Picture
from rockiln.engine.passes import Beginning, PassMaker
from rockiln.engine.rows import Row

Report = Callable[[Picture, Row], None]


def first_row(picture: Picture, report: Report) -> Row:
    """From noise, or from the job's picture. ``report`` is called after each step."""
    job = picture.job
    # Noise is drawn on the CPU, so that a seed means the same picture on every device.
    generator = torch.Generator("cpu").manual_seed(job.run.parameters.picture_seed(picture.index))
    maker, work = _maker(job), job.passes[0]
    if job.start is None:
        beginning = maker.from_noise(work, generator)
    else:
        beginning = maker.from_picture(work, job.start, generator)
    return _row(picture, beginning, generator, report)


def next_row(picture: Picture, done: Row, report: Report) -> Row:
    """Of the pass after, from the latents that ``done`` ended with."""
    job = picture.job
    picture.passes_done += 1
    work = job.passes[picture.passes_done]
    beginning = _maker(job).from_latents(work, done.latents, done.generator)
    row = _row(picture, beginning, done.generator, report)
    row.widest_batch_rows = done.widest_batch_rows
    return row


def _maker(job: Job) -> PassMaker:
    model = job.shelved.model
    return PassMaker(model.family, model.components, job.run.parameters.scheduler)


def _row(picture: Picture, beginning: Beginning, generator: torch.Generator, report: Report) -> Row:
    job, prompts = picture.job, picture.job.prompts[picture.passes_done]
    plan = job.run.plan
    return Row(
        form=(
            id(job.shelved),
            plan.channels_last,
            plan.sliced_attention,
            plan.split_samples,
            job.loras,
            job.controlnets,
        ),
        latents=beginning.latents,
        scheduler=beginning.scheduler,
        conditioning=prompts.positive,
        negative=prompts.negative,
        guidance_scale=job.run.parameters.guidance_scale,
        guide=job.shelved.model.family.guide,
        generator=generator,
        max_batch_rows=plan.max_batch_rows,
        on_step=[partial(report, picture)],
        begin=beginning.begin,
        controls=job.controls[picture.passes_done],
        after_step=beginning.blend,
    )
