"""Where the job in hand lies: leased, planned, handed to the engine, recorded, ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from rockiln.domain.errors import BrokenModelError, LeaseLostError
from rockiln.domain.fault import Fault, FaultCode, Stage
from rockiln.domain.job import JobState
from rockiln.domain.residency import beside_pinned
from rockiln.registry.controlnets import beside, find_controlnets
from rockiln.registry.embeddings import find_embeddings
from rockiln.registry.loras import find_loras
from rockiln.settings import Settings
from rockiln.store.records import Job, Lease, Picture
from rockiln.store.store import Store
from rockiln.worker import protocol
from rockiln.worker.attempt import Attempt
from rockiln.worker.classify import Death, classify
from rockiln.worker.clocks import Clocks, Medians
from rockiln.worker.endings import Endings
from rockiln.worker.engine_host import EngineHost
from rockiln.worker.rung_choice import choose

log = structlog.get_logger()

STEP_RECORD_SECONDS = 0.2


class Desk:
    """One job at a time, and all that is written about it.

    Attributes:
        attempt: the job in hand.
        proof_at: when a picture was last made and found good, seconds since the epoch.
        last_fault: how the last attempt that failed ended.

    Args:
        monotonic: clock of the deadlines, seconds.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        engine: EngineHost,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._store = store
        self._engine = engine
        self._monotonic = monotonic
        self._clocks = Clocks.of(settings)
        self._medians = Medians()
        self._endings = Endings(settings, store, engine)
        self.attempt: Attempt | None = None
        self.proof_at: float | None = None
        self.last_fault: Fault | None = None

    # Taking a job up

    def lease_next(self) -> None:
        """Takes the next job for the proven engine that waits."""
        leased = self._store.jobs.lease_next(
            worker=self._settings.worker_name, seconds=self._settings.lease_seconds
        )
        if leased is None:
            return
        lease, job = leased
        self._take_up(lease, job)
        log.info("job.leased", job_id=job.id, attempt=lease.attempt)  # now that nobody waits for it

    def _take_up(self, lease: Lease, job: Job) -> None:
        settings = self._settings
        ready, model = self._engine.ready, self._engine.model(job.parameters.model)
        if ready is None:
            raise RuntimeError("a job was leased without an engine")
        try:
            if model is None:
                raise BrokenModelError(f"model {job.parameters.model} is gone")
            loras = find_loras(settings.model_dirs, job.parameters.loras)
            embeddings = find_embeddings(settings.model_dirs, job.parameters.embeddings)
            controlnets = find_controlnets(settings.model_dirs, job.parameters.controlnets)
            model = beside(model, controlnets.values())
            room = beside_pinned(ready.device, self._engine.pinned, model)
            ready = ready.model_copy(update={"device": room})
        except BrokenModelError as error:
            self._close(self._endings.record(lease, Fault(FaultCode.BROKEN_MODEL, error.detail)))
            return
        now = self._monotonic()
        spent = max(0.0, time.time() - job.started_at) if job.started_at is not None else 0.0
        self.attempt = Attempt(
            lease=lease,
            job=job,
            model=model,
            lora_files=loras,
            embedding_files=embeddings,
            controlnet_files=controlnets,
            choice=choose(job, model, ready, self._store),
            ready=ready,
            ends=now + self._attempt_seconds(job),
            job_ends=now + settings.job_deadline_seconds - spent,
        )
        self.engine_ready()

    def _attempt_seconds(self, job: Job) -> float:
        """Of one attempt. A warm-up's decode may take its own clock on top of it."""
        search = self._settings.warm_up_decode_seconds if job.purpose == "warm_up" else 0.0
        return self._settings.attempt_deadline_seconds + search

    def engine_ready(self) -> None:
        """Hands the job in hand to the engine, or has one come that suits it."""
        attempt = self.attempt
        if attempt is None or attempt.running or not self._engine.free:
            return
        plan, job = attempt.choice.plan, attempt.job
        if not self._engine.takes(attempt.model, plan):
            self._engine.replace(attempt.model, plan, f"job {job.id} wants {plan.rungs.as_dict()}")
            return
        to_load = self._engine.bytes_to_load(attempt.model)
        attempt.running = True
        attempt.undenoised = {
            picture.index
            for picture in job.pictures
            if picture.latents is None and picture.state is not JobState.PUBLISHED
        }
        stage: Stage = "encode_prompt" if attempt.undenoised else "decode"
        self._enter(attempt, stage, load_bytes=to_load)
        self._engine.run(
            protocol.Run(
                job_id=job.id,
                attempt=attempt.lease.attempt,
                parameters=job.parameters,
                plan=plan,
                model=attempt.model,
                pictures=[
                    protocol.PictureTask(index=picture.index, latents=picture.latents)
                    for picture in job.pictures
                    if picture.state is not JobState.PUBLISHED
                ],
                lora_files=attempt.lora_files,
                embedding_files=attempt.embedding_files,
                controlnet_files=attempt.controlnet_files,
                purpose=job.purpose,
            )
        )
        if attempt.undenoised:  # while the engine reads the prompt
            self._make_latents_folder(job.id)

    def _make_latents_folder(self, job_id: str) -> None:
        try:
            self._store.artefacts.make_latents_folder(job_id)
        except OSError as error:  # the engine will meet it, where it ends the attempt
            log.warning("latents.folder_failed", job_id=job_id, error=str(error))

    def _enter(self, attempt: Attempt, stage: Stage, *, load_bytes: int = 0) -> None:
        choice = attempt.choice
        limit = self._clocks.stage(
            stage,
            times=self._medians.times(choice.key, choice.times),
            warm_up=attempt.job.purpose == "warm_up",
            load_bytes=load_bytes,
            first_step=not attempt.steps,
        )
        attempt.enter(stage, limit, self._monotonic())

    # What the engine reports

    def progress(self, event: protocol.Progress) -> None:
        """Writes down what the engine reports. A line of a job that was given up is nothing."""
        attempt = self.attempt
        if attempt is None or attempt.job.id != event.job_id:
            return
        attempt.taken = True
        ended = isinstance(event, protocol.JobEnded | protocol.JobFailed)
        if attempt.lost:
            if ended:
                self.attempt = None
            return
        try:
            self._record(attempt, event)
        except LeaseLostError:
            self._lose(attempt)
            if ended:
                self.attempt = None

    def _record(self, attempt: Attempt, event: protocol.Progress) -> None:
        match event:
            case protocol.JobEnded():
                self._job_ended(attempt, event)
            case protocol.JobFailed():
                fault = Fault(event.code, event.detail, event.stage or attempt.stage)
                self._end_attempt(fault)
                if fault.climbs or fault.doubts_device:
                    # Never again in a process that holds what made it fail.
                    self._engine.make_room(f"{fault.code} at {fault.stage}")
            case protocol.StepDone():
                self._step_done(attempt, event)
            case _:
                self._stage_reached(attempt, event)

    def _stage_reached(self, attempt: Attempt, event: protocol.Progress) -> None:
        jobs, lease, now = self._store.jobs, attempt.lease, self._monotonic()
        match event:
            case protocol.DenoiseStarted():
                self._enter(attempt, "denoise")
            case protocol.PreviewMade():
                jobs.record_preview(lease, event.index, event.step)
            case protocol.LatentsStored():
                jobs.record_latents(lease, event.index, event.latents)
                attempt.undenoised.discard(event.index)
                self._next_picture(attempt)
            case protocol.DecodeStarted():
                jobs.record_decode_started(lease, event.index)
                attempt.decode_began(now)
                self._enter(attempt, "decode")
            case protocol.EncodeStarted():
                self._decoded(attempt, now)
                self._enter(attempt, "encode")
            case protocol.PictureEncoded():
                self._decoded(attempt, now)
                attempt.peak_bytes = max(attempt.peak_bytes, *event.memory.values(), 0)
                self._publish(attempt, event)
                self._next_picture(attempt)

    def _next_picture(self, attempt: Attempt) -> None:
        """What happens after the last latents is the decoder's: a retry would start there."""
        self._enter(attempt, "denoise" if attempt.undenoised else "decode")

    def _step_done(self, attempt: Attempt, event: protocol.StepDone) -> None:
        now = self._monotonic()
        seconds = attempt.step_done(event.index, event.steps - event.step, now)
        if seconds is not None:
            self._medians.add_step(attempt.choice.key, seconds)
        self._enter(attempt, "denoise")
        if now - attempt.step_recorded >= STEP_RECORD_SECONDS:
            attempt.step_recorded = now
            self._store.jobs.record_step(attempt.lease, event.index, event.step)

    def _decoded(self, attempt: Attempt, now: float) -> None:
        seconds = attempt.decode_done(now)
        if seconds is not None:
            self._medians.add_decode(attempt.choice.key, seconds)

    def _publish(self, attempt: Attempt, event: protocol.PictureEncoded) -> None:
        job = self._store.jobs.publish(
            attempt.lease,
            event.index,
            Picture(
                index=event.index,
                state=JobState.PUBLISHED,
                step=attempt.job.parameters.total_steps,
                latents=None,
                digest=event.digest,
                size_bytes=event.size_bytes,
                details=dict(event.details),
                warnings=tuple(event.warnings),
                seconds=event.seconds,
            ),
            peak_bytes=event.memory,
        )
        self.proof_at = time.time()
        if job.ended:
            # From here on nothing that happens to the engine can touch the job.
            self._settle(job.id, job.state)
            self._succeeded(attempt)

    def _job_ended(self, attempt: Attempt, event: protocol.JobEnded) -> None:
        jobs = self._store.jobs
        if event.outcome == "cancelled" and attempt.draining:
            self._give_back(attempt)
        elif event.outcome == "cancelled":
            jobs.record_cancelled(attempt.lease)
            self._settle(attempt.job.id, JobState.CANCELLED)
        elif attempt.job.purpose == "warm_up":
            jobs.record_warmed_up(attempt.lease)
            self._succeeded(attempt)
            self._settle(attempt.job.id, JobState.DONE)
        elif jobs.get(attempt.job.id).ended:
            self.attempt = None
        else:
            self._end_attempt(Fault(FaultCode.ENGINE_ERROR, "the engine left pictures unmade"))

    def _succeeded(self, attempt: Attempt) -> None:
        self._engine.budget.done()
        self._store.rungs.record_success(
            attempt.choice.key,
            attempt.choice.plan.rungs,
            step_seconds=attempt.median_step,
            decode_seconds=attempt.median_decode,
            peak_bytes=attempt.peak_bytes or None,
        )

    # How an attempt ends without its pictures

    def engine_died(self, death: Death) -> Fault:
        """Ends the attempt that the engine died of."""
        attempt = self.attempt
        taken = attempt is not None and attempt.taken and not attempt.lost
        fault = classify(replace(death, stage=attempt.stage if attempt and taken else None))
        self.last_fault = fault
        log.error("engine.classified", code=fault.code, stage=fault.stage, detail=fault.detail)
        if attempt is None:
            return fault
        if not attempt.taken and (attempt.running or not fault.climbs):
            self._give_back(attempt)  # it died of what came before this job
        else:
            self._end_attempt(fault, death)
        return fault

    def _end_attempt(self, fault: Fault, death: Death | None = None) -> None:
        self.last_fault = fault
        attempt, self.attempt = self.attempt, None
        if attempt is not None and not attempt.lost:
            self._close(self._endings.end(attempt, fault, death))

    def _close(self, job: Job | None) -> None:
        if job is not None and job.ended:
            self._settle(job.id, job.state)

    def _settle(self, job_id: str, state: JobState) -> None:
        self.attempt = None
        self._store.wake("api")
        self._store.artefacts.drop_latents(job_id)
        log.info("job.ended", job_id=job_id, state=state)

    # Clocks, leases, leaving

    def watch_clocks(self) -> None:
        """Ends the engine when a clock has run out."""
        attempt, now = self.attempt, self._monotonic()
        if attempt is None:
            return
        expired = attempt.expired(now)
        if attempt.cancel_ends is not None and now >= attempt.cancel_ends:
            self._engine.end("it did not obey a cancel")
        elif expired is not None:
            self._engine.end(expired[1], expired=expired[0])

    def renew_lease(self) -> None:
        """Keeps the job; hears whether its client has cancelled it."""
        attempt = self.attempt
        if attempt is None or attempt.lost:
            return
        try:
            seconds = self._settings.lease_seconds
            if self._store.jobs.renew(attempt.lease, seconds=seconds):
                self._cancel(attempt)
        except LeaseLostError:
            self._lose(attempt)

    def drain(self, left_seconds: float) -> None:
        """The worker stops: what can be finished in time is, the rest goes back, uncounted."""
        attempt = self.attempt
        if attempt is None or attempt.draining:
            return
        step = self._medians.times(attempt.choice.key, attempt.choice.times).step
        needed = None if step is None else attempt.steps_left * step
        if not attempt.running or left_seconds <= 0:
            self._give_back(attempt)
        elif not attempt.denoised and (needed is None or needed > left_seconds / 2):
            attempt.draining = True
            self._engine.cancel(attempt.job.id)

    def give_back(self) -> None:
        """Returns what is still in hand, without counting an attempt."""
        if self.attempt is not None:
            self._give_back(self.attempt)

    def _give_back(self, attempt: Attempt) -> None:
        self.attempt = None
        if attempt.lost:
            return
        try:
            self._store.jobs.give_back(attempt.lease)
        except LeaseLostError:
            log.warning("lease.lost", job_id=attempt.job.id, attempt=attempt.lease.attempt)
            return
        log.info("job.given_back", job_id=attempt.job.id)

    def _lose(self, attempt: Attempt) -> None:
        attempt.lost = True
        log.warning("lease.lost", job_id=attempt.job.id, attempt=attempt.lease.attempt)
        self._cancel(attempt)

    def _cancel(self, attempt: Attempt) -> None:
        if not attempt.running:
            if attempt.lost:
                self.attempt = None
            else:
                self._store.jobs.record_cancelled(attempt.lease)
                self._settle(attempt.job.id, JobState.CANCELLED)
        elif attempt.cancel_ends is None:
            attempt.cancel_ends = self._monotonic() + self._settings.cancel_grace_seconds
            self._engine.cancel(attempt.job.id)
