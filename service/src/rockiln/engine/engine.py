"""Runs jobs: rows through the loop, latents to disk, pictures to files, one step at a time.

The life of a picture follows the reference pipeline's steps: check_inputs, encode_prompt,
prepare_latents, denoise, decode, postprocess. Between any two calls of ``advance`` jobs may be
submitted or cancelled.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from rockiln.domain.errors import RockilnError
from rockiln.domain.fault import Stage
from rockiln.engine.controls import controls_of, steered
from rockiln.engine.embeddings import ReadTexts, embeddings_on
from rockiln.engine.families.interface import Conditioning, Predict, PromptText
from rockiln.engine.faults import fault_of, needs_fresh_process
from rockiln.engine.jobs import Job, Picture, Prompts, Stopwatch, check_inputs, text_warnings
from rockiln.engine.latents_file import FinalLatents, StoredLatentsError, read_latents
from rockiln.engine.loras import digests_of, loras_of
from rockiln.engine.model_shelf import ModelShelf
from rockiln.engine.passes import Pass, passes_of
from rockiln.engine.picture_file import encode_picture
from rockiln.engine.picture_rows import first_row, next_row
from rockiln.engine.placement import enter_stage
from rockiln.engine.png import Pixels
from rockiln.engine.postprocess import check_latents, to_pixels
from rockiln.engine.record import Surroundings, make_record
from rockiln.engine.rows import Row, denoise_step, next_batch, one_by_one
from rockiln.engine.start_picture import StartPicture, start_of
from rockiln.platforms.interface import Device
from rockiln.store.artefacts import ArtefactStore
from rockiln.worker import protocol

# Between two previews of a picture: a quick model makes none, a slow one makes one a step.
PREVIEW_SECONDS = 0.5


class UnfitDeviceError(RockilnError):
    """This process can do no further work on its device; the child has to leave."""


class Engine:
    """The jobs of one child on one device.

    Args:
        send: takes each event, in order.
    """

    def __init__(
        self,
        device: Device,
        shelf: ModelShelf,
        artefacts: ArtefactStore,
        surroundings: Surroundings,
        send: Callable[[protocol.Progress], None],
    ) -> None:
        self._device = device
        self._shelf = shelf
        self._artefacts = artefacts
        self._surroundings = surroundings
        self._send = send
        self._jobs: dict[str, Job] = {}
        self._denoising: list[Picture] = []
        self._decoding: deque[Picture] = deque()
        # What is being done, for the fault that may come of it.
        self._stage: Stage = "start"

    @property
    def idle(self) -> bool:
        return not self._denoising and not self._decoding

    def use_pause(self) -> float | None:
        """Between jobs: does what nobody is to wait for; seconds until there is more of it."""
        return self._shelf.use_pause()

    def submit(self, run: protocol.Run) -> None:
        """Takes a job in: its rows join at this step boundary. Errors become JobFailed."""
        try:
            self._admit(run)
        except Exception as error:  # noqa: BLE001 (whatever it is becomes the job's fault)
            self._fail([run.job_id], error)

    def cancel(self, job_id: str) -> None:
        """Drops what is left of the job. A job that has ended is no error: the news crossed."""
        if job_id in self._jobs:
            self._drop(job_id)
            self._send(protocol.JobEnded(job_id=job_id, outcome="cancelled"))

    def advance(self) -> None:
        """Decodes one finished picture, else does one denoising step for the rows in front.

        Raises:
            UnfitDeviceError: after the jobs concerned were reported as failed.
        """
        if self._decoding:
            picture = self._decoding.popleft()
            try:
                self._finish(picture)
            except Exception as error:  # noqa: BLE001 (likewise)
                self._fail([picture.job.id], error)
        elif self._denoising:
            self._denoise()

    # check_inputs, encode_prompt, prepare_latents

    def _admit(self, run: protocol.Run) -> None:
        self._stage = "start"
        if run.job_id in self._jobs:
            raise ValueError(f"job {run.job_id} was sent twice")
        check_inputs(run, self._device)
        watch = Stopwatch(self._device)
        with watch.measure("load"):
            shelved = self._shelf.take(run.model, run.plan)
        job = Job(run, shelved, watch)
        job.open_pictures = len(run.pictures)
        job.passes = passes_of(run.parameters)
        job.start = start_of(run.parameters, self._artefacts)
        self._jobs[job.id] = job
        job.shelved.policies.align(run.plan)
        job.loras = loras_of(run)
        pictures = [Picture(job, task.index, Stopwatch(self._device)) for task in run.pictures]
        for picture, task in zip(pictures, run.pictures, strict=True):
            if task.latents is not None:
                picture.latents = self._stored_latents(job, task.latents)
        unmade = [picture for picture in pictures if picture.latents is None]
        if unmade:
            self._take_controlnets(job)
            self._stage = "encode_prompt"
            job.shelved.loras.align(job.loras)
        embeddings = {name: run.embedding_files[name] for name in run.parameters.embeddings}
        with embeddings_on(job.shelved.model.components, embeddings) as texts:
            job.warnings += text_warnings(job, texts)
            if unmade:
                with job.watch.measure("encode_prompt"):
                    job.prompts = [self._encode_prompts(job, work, texts) for work in job.passes]
        if unmade:
            if job.start is not None:
                job.start = self._encode_start(job, job.start)
            for picture in unmade:
                with picture.watch.measure("prepare_latents"):
                    picture.row = first_row(picture, self._report_step)
            self._send(protocol.DenoiseStarted(job_id=job.id))
        self._decoding += [picture for picture in pictures if picture.latents is not None]
        self._denoising += unmade
        self._end_if_done(job)

    def _take_controlnets(self, job: Job) -> None:
        """Those of the job beside its model, and those of the jobs that share it; no others."""
        uses, shelved = job.run.parameters.controlnets, job.shelved
        job.controlnets = tuple(Path(job.run.controlnet_files[use.name]) for use in uses)
        sharing = [each for each in self._jobs.values() if each.shelved is shelved]
        with job.watch.measure("load"):
            if shelved.controlnets.hold([path for each in sharing for path in each.controlnets]):
                self._device.release_cache()
            components = shelved.model.components
            job.controls = [
                controls_of(
                    job.run.parameters, (work.width, work.height), self._artefacts, components
                )
                for work in job.passes
            ]

    def _encode_start(self, job: Job, start: StartPicture) -> StartPicture:
        """With its latents' distribution. It needs less than decoding, and the same rungs help."""
        self._stage = "encode_image"
        model = job.shelved.model
        with job.watch.measure("encode_image"):
            self._enter(job, "decode")
            distribution = model.family.encode(model.components, start.as_tensor())
        return replace(start, distribution=distribution)

    def _encode_prompts(self, job: Job, work: Pass, texts: ReadTexts) -> Prompts:
        model, parameters = job.shelved.model, job.run.parameters
        self._enter(job, "encode_prompt")

        def encode(text: str, other: str, *, negative: bool) -> Conditioning:
            prompt = PromptText(
                text,
                negative,
                width=work.width,
                height=work.height,
                guidance_scale=parameters.guidance_scale,
                syntax=parameters.prompt_syntax,
                paired_with=other,
                clip_skip=1 if negative else parameters.clip_skip,  # as the reference has it
            )
            return model.family.encode_prompt(texts.components, prompt)

        paired = parameters.guided and model.components.unconditional_forward
        prompt = texts.spelt(parameters.prompt)
        other = texts.spelt(parameters.negative_prompt) if paired else ""
        return Prompts(
            positive=encode(prompt, other, negative=False),
            negative=encode(other, prompt, negative=True) if paired else None,
        )

    def _stored_latents(self, job: Job, name: str) -> FinalLatents | None:
        """Latents of an attempt before; None, with a line on stderr, if they are of no use."""
        try:
            stored = read_latents(self._artefacts.latents_path(name))
        except StoredLatentsError as error:
            sys.stderr.write(f"{error.detail}; denoising again\n")
            return None
        if stored.revision != job.shelved.model.revision:
            sys.stderr.write(f"stored latents {name} are of another model; denoising again\n")
            return None
        return stored

    # denoise

    def _report_step(self, picture: Picture, row: Row) -> None:
        self._preview(picture, row)
        self._send(
            protocol.StepDone(
                job_id=picture.job.id,
                index=picture.index,
                step=picture.steps_done,
                steps=picture.job.run.parameters.total_steps,
            )
        )

    def _preview(self, picture: Picture, row: Row) -> None:
        """A small picture now and then, for those who wait; a warm-up has nobody."""
        job, now = picture.job, time.monotonic()
        if (
            row.finished
            or row.estimate is None
            or job.run.purpose == "warm_up"
            or now - picture.previewed_monotonic < PREVIEW_SECONDS
        ):
            return
        data = job.shelved.colours.jpeg(row.estimate())
        if data is not None:
            picture.previewed_monotonic = now
            try:
                self._artefacts.put_preview(job.id, picture.index, data)
            except OSError as error:  # a job goes on without one
                sys.stderr.write(f"no preview of job {job.id}: {error}\n")
                return
            self._send(
                protocol.PreviewMade(job_id=job.id, index=picture.index, step=picture.steps_done)
            )

    def _denoise(self) -> None:
        by_row = {picture.row: picture for picture in self._denoising if picture.row is not None}
        rows = next_batch(list(by_row))
        pictures = [by_row[row] for row in rows]
        leader = pictures[0].job
        shelved, plan = leader.shelved, leader.run.plan
        model = shelved.model
        predict: Predict = partial(model.family.predict, model.components)
        if leader.controlnets:
            predict = steered(predict, shelved.controlnets.networks(leader.controlnets))
        self._stage = "denoise"
        try:
            with ExitStack() as stack:
                for picture in pictures:
                    stack.enter_context(picture.watch.measure("denoise"))
                shelved.policies.align(plan)
                shelved.loras.align(leader.loras)
                shelved.controlnets.align(plan)
                self._enter(leader, "denoise")
                denoise_step(rows, one_by_one(predict) if plan.split_samples else predict)
                self._device.synchronise()
        except Exception as error:  # noqa: BLE001 (likewise)
            self._fail({picture.job.id for picture in pictures}, error)
            return
        for picture, row in zip(pictures, rows, strict=True):
            if not row.finished:
                continue
            if picture.passes_done + 1 < len(picture.job.passes):
                picture.row = next_row(picture, row, self._report_step)
            else:
                self._denoising.remove(picture)
                self._hand_over_latents(picture, row)

    def _hand_over_latents(self, picture: Picture, row: Row) -> None:
        """Final latents to disk before anything of the decoder runs."""
        job = picture.job
        picture.row = None
        try:
            check_latents(row.latents)
            latents = FinalLatents(
                row.latents.contiguous(), job.shelved.model.revision, row.widest_batch_rows
            )
            with picture.watch.measure("store_latents"):
                name = self._artefacts.put_latents(job.id, picture.index, latents.to_bytes())
        except Exception as error:  # noqa: BLE001 (likewise)
            self._fail([job.id], error)
            return
        picture.latents = latents
        self._decoding.append(picture)
        self._send(protocol.LatentsStored(job_id=job.id, index=picture.index, latents=name))

    # decode, postprocess

    def _finish(self, picture: Picture) -> None:
        job, latents = picture.job, picture.latents
        if latents is None:
            raise RuntimeError(f"picture {picture.index} is to be decoded without latents")
        run, shelved = job.run, job.shelved
        model = shelved.model
        self._stage = "decode"
        self._send(protocol.DecodeStarted(job_id=job.id, index=picture.index))
        with picture.watch.measure("decode"):
            shelved.policies.align(run.plan)
            self._enter(job, "decode")
            on_device = latents.latents.to(model.placement.decode_device)
            pixels = to_pixels(model.family.decode(model.components, on_device))
        if run.purpose != "warm_up":  # its kernels are what was wanted; nobody asked for a picture
            self._encode(picture, latents, pixels)
        shelved.colours.show(latents.latents, pixels)
        self._close(picture)

    def _encode(self, picture: Picture, latents: FinalLatents, pixels: Pixels) -> None:
        job = picture.job
        run, shelved = job.run, job.shelved
        if job.start is not None:
            pixels = job.start.keep_rest(pixels)
        self._stage = "encode"
        self._send(protocol.EncodeStarted(job_id=job.id, index=picture.index))
        record = make_record(
            run.parameters,
            index=picture.index,
            plan=run.plan,
            policies=shelved.policies.names,
            model=run.model,
            revision=latents.revision,
            batch_rows=latents.batch_rows,
            surroundings=self._surroundings,
            loras=digests_of((use.name for use in run.parameters.loras), run.lora_files),
            embeddings=digests_of(run.parameters.embeddings, run.embedding_files),
            controlnets={
                name: self._shelf.digest_of(Path(path))
                for name, path in run.controlnet_files.items()
            },
        )
        with picture.watch.measure("postprocess"):
            encoded = encode_picture(pixels, run.parameters.format, record)
            digest = self._artefacts.put_picture(encoded.data, run.parameters.format)
        self._send(
            protocol.PictureEncoded(
                job_id=job.id,
                index=picture.index,
                digest=digest,
                size_bytes=len(encoded.data),
                details=record,
                warnings=[*job.warnings, *encoded.warnings],
                seconds=picture.seconds,
                memory=picture.memory,
            )
        )

    def _enter(self, job: Job, stage: Literal["encode_prompt", "denoise", "decode"]) -> None:
        """Moves weights as the job's plan has it for the stage."""
        alone = stage == "decode" and job.run.plan.unload_before_decode
        placements = [job.shelved.model.placement, *job.shelved.controlnets.placements]
        enter_stage(placements, stage, self._device.release_cache, alone=alone)

    # How a job ends

    def _close(self, picture: Picture) -> None:
        picture.job.open_pictures -= 1
        self._end_if_done(picture.job)

    def _end_if_done(self, job: Job) -> None:
        if job.open_pictures == 0:
            self._drop(job.id)
            self._send(protocol.JobEnded(job_id=job.id, outcome="encoded"))

    def _drop(self, job_id: str) -> None:
        job = self._jobs.pop(job_id, None)
        if job is not None:
            self._shelf.touch(job.shelved)
        self._denoising = [made for made in self._denoising if made.job.id != job_id]
        self._decoding = deque(made for made in self._decoding if made.job.id != job_id)

    def _fail(self, job_ids: Iterable[str], error: Exception) -> None:
        traceback.print_exception(error)
        fault = fault_of(error)
        for job_id in sorted(job_ids):
            self._drop(job_id)
            self._send(
                protocol.JobFailed(
                    job_id=job_id, code=fault.code, detail=fault.detail, stage=self._stage
                )
            )
        if needs_fresh_process(error, fault.code):
            raise UnfitDeviceError(fault.detail)
        self._device.release_cache()
