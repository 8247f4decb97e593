"""Keeps one engine child alive: starts it, waits until it is proven, buries it, starts the next."""

from __future__ import annotations

import math
import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import ValidationError

from rockiln.domain.fault import Fault, FaultCode
from rockiln.domain.model import ModelProfile
from rockiln.domain.plan import Plan
from rockiln.registry import Catalogue, load_catalogue
from rockiln.settings import Settings
from rockiln.worker import protocol
from rockiln.worker.budget import RestartBudget
from rockiln.worker.classify import Death
from rockiln.worker.clocks import Clocks
from rockiln.worker.engine_process import EngineProcess
from rockiln.worker.kernel_log import KernelLog
from rockiln.worker.oom_counter import counter_file, read_counter

log = structlog.get_logger()

# From the end of commands to SIGKILL, for a child that has nothing left to do.
_LEAVE_SECONDS = 2.0
_WIDEST_NUMBER_BYTES = 4


@dataclass
class _Ending:
    """A child that is being ended.

    Attributes:
        fault: it is ended for something it did; otherwise it makes room for another.
        kill_at, given_up_at: monotonic seconds; the latter counts from the SIGKILL.
    """

    reason: str
    expired: str
    fault: bool
    kill_at: float
    given_up_at: float | None = None
    given_up: bool = False


class EngineHost:
    """The place of one engine child.

    Attributes:
        ready: what the present child said when it had proven itself; None while there is none.
        trouble: why there is no proven child; empty while one starts for the first time.
        budget: back-off, deaths and whether the device counts as wedged.
        models: what the present child has in memory, as it last said.

    Args:
        on_progress: takes each event of a job.
        on_ready: called when a child has proven itself.
        on_death: takes what is known of a child that ended for a fault, without the stage of its
            job, after the child's last events were handed on. Tells which fault it was.
        monotonic: clock of the deadlines, seconds.
    """

    def __init__(
        self,
        settings: Settings,
        selector: selectors.BaseSelector,
        *,
        on_progress: Callable[[protocol.Progress], None],
        on_ready: Callable[[], None],
        on_death: Callable[[Death], Fault],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._selector = selector
        self._on_progress = on_progress
        self._on_ready = on_ready
        self._on_death = on_death
        self._monotonic = monotonic
        self._clocks = Clocks.of(settings)
        self._process: EngineProcess | None = None
        self._ending: _Ending | None = None
        self._catalogue = Catalogue()
        self._wanted: tuple[ModelProfile, Plan] | None = None
        self._plan: Plan | None = None
        self._plans: dict[str, Plan] = {}
        self._misspoke = False
        self._told: tuple[FaultCode, str] | None = None
        self._start_at_monotonic = 0.0
        self._start_deadline_monotonic = 0.0
        self._start_seconds = 0.0
        self._kernel_log = KernelLog()
        self._oom_file: Path | None = None
        self._oom_kills: int | None = None
        self.kernel_log_unreadable = self._kernel_log.unreadable
        self.models: list[protocol.ModelInMemory] = []
        self.ready: protocol.Ready | None = None
        self.trouble = ""
        self.budget = RestartBudget(
            deaths_allowed=settings.restart_budget,
            window_seconds=settings.restart_window_seconds,
            first_seconds=settings.restart_backoff_seconds,
            max_seconds=settings.restart_backoff_max_seconds,
            probe_seconds=settings.wedged_probe_seconds,
        )

    @property
    def wedged(self) -> str:
        """Why the device cannot be trusted with a job; empty: it can."""
        if self._ending is not None and self._ending.given_up:
            pid = self._process.pid if self._process is not None else 0
            return f"engine {pid} does not die of SIGKILL: {self._ending.reason}"
        return self.budget.wedged

    @property
    def free(self) -> bool:
        """Whether a proven child waits for a job."""
        return self.ready is not None and self._ending is None and not self.wedged

    def look_after(self) -> None:
        """Starts a child where there is none; ends, or gives up, one that has to go."""
        now = self._monotonic()
        if self._process is None:
            if now >= self._start_at_monotonic:
                self._start()
        elif self._ending is not None:
            self._pursue(self._process, self._ending, now)
        elif self.ready is None and now >= self._start_deadline_monotonic:
            self.end(f"not ready within {self._start_seconds:g} s", expired="start")

    def due_in(self, now: float) -> float:
        """Seconds until ``look_after`` has something to do; infinite if only news can bring it."""
        if self._process is None:
            due = self._start_at_monotonic
        elif self._ending is not None:
            due = self._ending.given_up_at or self._ending.kill_at
        else:
            due = self._start_deadline_monotonic if self.ready is None else math.inf
        return max(0.0, due - now)

    def model(self, model_id: str) -> ModelProfile | None:
        """A model by id. The folders are read at a start, and again only for an unknown id."""
        if model_id not in self._catalogue.models:
            self._catalogue = self._read_catalogue()
        return self._catalogue.models.get(model_id)

    @property
    def pinned(self) -> list[ModelProfile]:
        """The models that are to stay in memory, those of them that are on this host."""
        return self._catalogue.pinned(self._settings.pinned_ids)

    def takes(self, model: ModelProfile, plan: Plan) -> bool:
        """Whether the child can run that plan: weights do not move in a living child.

        A model that is not loaded yet comes to the others if it is placed as the last job's was.
        """
        if model.id in self._plans:
            return not self._plans[model.id].needs_new_child(plan)
        return self._plan is None or not self._plan.needs_new_child(plan, same_model=False)

    def bytes_to_load(self, model: ModelProfile) -> int:
        """What the child has not in memory yet; of ControlNets it is not known which it has."""
        controlnets = sum(each.parameters for each in model.controlnets) * _WIDEST_NUMBER_BYTES
        return controlnets + (0 if model.id in self._plans else model.weights_bytes)

    def replace(self, model: ModelProfile, plan: Plan, reason: str) -> None:
        """Has the child leave and one for that plan come."""
        self._wanted = (model, plan)
        self.make_room(reason)

    def make_room(self, reason: str) -> None:
        """Has a healthy child leave: no death, no back-off."""
        if self._process is None or self._ending is not None:
            return
        log.info("engine.leaves", pid=self._process.pid, reason=reason)
        self._ending = _Ending(reason, "", fault=False, kill_at=self._monotonic() + _LEAVE_SECONDS)
        self._process.end_commands()

    def prove_now(self) -> None:
        """Starts the next engine at once, whatever its pause. One that does not die stays."""
        self._start_at_monotonic = self._monotonic()

    def run(self, command: protocol.Run) -> None:
        """Hands a job to the child."""
        process = self._living()
        self._plans[command.model.id] = command.plan
        if command.model.id not in self._settings.pinned_ids:
            self._plan = command.plan
        process.forget_output()
        self._watch_for_deaths(process)
        if not process.send(command):
            self.end("it takes no commands")

    def cancel(self, job_id: str) -> None:
        """Asks the child to drop a job at its next step."""
        process = self._living()
        if self._ending is None and not process.send(protocol.Cancel(job_id=job_id)):
            self.end("it takes no commands")

    def end(self, reason: str, *, expired: str = "") -> None:
        """SIGABRT for a dump of all stacks, then SIGKILL, then it counts as lost."""
        if self._process is None or self._ending is not None:
            return
        log.warning("engine.ended", pid=self._process.pid, reason=reason, clock=expired)
        kill_at = self._monotonic() + self._settings.abort_grace_seconds
        self._ending = _Ending(reason, expired, fault=True, kill_at=kill_at)
        self._process.abort()

    def close(self) -> None:
        """Ends the child for good, and does not wait for one that cannot die."""
        if self._process is not None:
            self._process.kill()
            deadline = self._monotonic() + self._settings.reap_seconds
            exit_descriptor = self._process.descriptors[2]
            with selectors.DefaultSelector() as waiting:
                waiting.register(exit_descriptor, selectors.EVENT_READ)
                waiting.select(max(0.0, deadline - self._monotonic()))
            if self._process.exited:
                log.info("engine.stopped", pid=self._process.pid)
                self._retire()
            else:
                log.error("engine.lost", pid=self._process.pid)
        self._kernel_log.close()

    # Starting

    def _read_catalogue(self) -> Catalogue:
        settings = self._settings
        return load_catalogue(
            settings.model_dirs,
            settings.hub_cache_dir,
            quantisation_allowed=settings.quantisation_allowed,
        )

    def _start(self) -> None:
        settings = self._settings
        catalogue = self._catalogue = self._read_catalogue()
        model, plan = self._wanted or (catalogue.default(settings.default_model), None)
        if model is None:
            reasons = [f"{name}: {reason}" for name, reason in catalogue.broken.items()]
            places = " or ".join(map(str, settings.model_dirs))
            self.trouble = "; ".join([f"no model that works in {places}", *reasons])
            self._start_at_monotonic = self._monotonic() + self.budget.postpone()
            return
        self._process = process = EngineProcess(
            settings.worker_python, settings.as_environment(trusted=False)
        )
        self._plan = plan
        pinned = self.pinned
        to_load = {each.id: each.weights_bytes for each in (model, *pinned)}
        self._start_seconds = self._clocks.starting(sum(to_load.values()))
        self._start_deadline_monotonic = self._monotonic() + self._start_seconds
        events, output, exited = process.descriptors
        self._selector.register(events, selectors.EVENT_READ, self._read_events)
        self._selector.register(output, selectors.EVENT_READ, self._read_output)
        self._selector.register(exited, selectors.EVENT_READ, self._exited)
        self._watch_for_deaths(process)
        process.send(
            protocol.Start(
                backend=settings.backend,
                compute_device=settings.compute_device,
                torch_threads=settings.torch_threads,
                artefacts_dir=str(settings.artefacts_dir),
                cache_dir=str(settings.cache_dir),
                model=model,
                plan=plan,
                reserved_vram_bytes=settings.reserved_vram_bytes,
                environment=settings.engine_environment | (plan.environment if plan else {}),
                pinned=pinned,
                model_idle_seconds=settings.model_idle_seconds,
            )
        )
        log.info("engine.started", pid=process.pid, model=model.id)

    def _watch_for_deaths(self, process: EngineProcess) -> None:
        """From here on, what the kernel logs and kills is about the next death."""
        self._kernel_log.lines()
        self._oom_file = counter_file(process.pid)
        self._oom_kills = read_counter(self._oom_file)

    def _living(self) -> EngineProcess:
        if self._process is None:
            raise RuntimeError("there is no engine to send to")
        return self._process

    # What the child says

    def _read_events(self) -> None:
        if self._process is None or self._misspoke:
            return
        try:
            for event in self._process.events():
                self._handle(event)
        except ValidationError as error:
            # No traceback: it would print the line. Nothing the child says later is believed.
            self._misspoke = True
            log.error("engine.misspoke", errors=[item["type"] for item in error.errors()])
            self.end("it sent a line that is no event")

    def _handle(self, event: protocol.Event) -> None:
        match event:
            case protocol.Ready():
                self.ready, self.trouble, self._wanted = event, "", None
                self.budget.proven(self._monotonic())
                log.info("engine.proven", device=event.device.name, seconds=event.proof_seconds)
                self._on_ready()
            case protocol.ModelsInMemory():
                self.models = event.models
                self._plans = {model.id: model.plan for model in event.models}
            case protocol.StartFailed():
                self._told = (event.code, event.detail)
            case _:
                self._on_progress(event)

    def _read_output(self) -> None:
        if self._process is not None:
            for line in self._process.drain_output():
                log.debug("engine.printed", line=line)

    # How it ends

    def _pursue(self, process: EngineProcess, ending: _Ending, now: float) -> None:
        if ending.given_up_at is None:
            if now >= ending.kill_at:
                process.kill()
                ending.given_up_at = now + self._settings.reap_seconds
        elif not ending.given_up and now >= ending.given_up_at:
            ending.given_up = True
            log.error("engine.wedged", pid=process.pid, reason=ending.reason)
            self._on_death(self._death(process))

    def _exited(self) -> None:
        """Hands on what the child still said, then what became of it."""
        process, ending = self._process, self._ending
        if process is None or not process.exited:
            return
        self._read_events()
        self._read_output()
        ending = self._ending  # the last events may have condemned it
        death = self._death(process)
        self._retire()
        now = self._monotonic()
        if ending is not None and not ending.fault:
            log.info("engine.left", pid=death.pid, how=death.how)
            self._start_at_monotonic = now
            return
        log.error("engine.died", pid=death.pid, how=death.how, reason=death.ours)
        if not death.proven:
            words = death.told[1] if death.told is not None else death.ours or death.how
            self.trouble = f"the engine did not start: {words}"
        if ending is not None and ending.given_up:
            started, doubts_device = True, True  # its job was ended when it was given up
        else:
            fault = self._on_death(death)
            started = death.proven or fault.outside
            doubts_device = fault.doubts_device
        backoff = self.budget.died(now, proven=started, doubts_device=doubts_device)
        self._start_at_monotonic = now + backoff

    def _death(self, process: EngineProcess) -> Death:
        before, after = self._oom_kills, read_counter(self._oom_file)
        ending = self._ending
        return Death(
            pid=process.pid,
            returncode=process.returncode,
            proven=self.ready is not None,
            stage=None,
            expired=ending.expired if ending is not None else "",
            ours=ending.reason if ending is not None and ending.fault else "",
            output=tuple(process.output_tail),
            kernel_lines=tuple(self._kernel_log.lines()),
            oom_kills=None if before is None or after is None else after - before,
            told=self._told,
        )

    def _retire(self) -> None:
        if self._process is not None:
            for descriptor in self._process.descriptors:
                self._selector.unregister(descriptor)
            self._process.close()
        self._process = self._plan = self.ready = self._ending = None
        self._plans, self.models = {}, []
        self._misspoke = False
        self._told = None
