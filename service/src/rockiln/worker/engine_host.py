"""Keeps one engine child alive: starts it, waits until it is proven, buries it, starts the next."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable

import structlog
from pydantic import ValidationError

from rockiln.domain.model import ModelProfile
from rockiln.domain.plan import Placement
from rockiln.registry import Catalogue, load_catalogue
from rockiln.settings import Settings
from rockiln.worker import protocol
from rockiln.worker.engine_process import EngineProcess

log = structlog.get_logger()

RESTART_BACKOFF_SECONDS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)


class EngineHost:
    """The place of one engine child.

    Attributes:
        ready: what the present child said when it had proven itself; None while there is none.
        trouble: why there is no proven child; empty while one starts for the first time.

    Args:
        on_progress: takes each event of a job.
        on_ready: called when a child has proven itself.
        on_death: takes the reason, after the child's last events were handed on.
        monotonic: clock of the deadlines, seconds.
    """

    def __init__(
        self,
        settings: Settings,
        selector: selectors.BaseSelector,
        *,
        on_progress: Callable[[protocol.Progress], None],
        on_ready: Callable[[], None],
        on_death: Callable[[str], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._selector = selector
        self._on_progress = on_progress
        self._on_ready = on_ready
        self._on_death = on_death
        self._monotonic = monotonic
        self._process: EngineProcess | None = None
        self._placement: Placement | None = None
        self._catalogue = Catalogue()
        self._kill_reason = ""
        self._misspoke = False
        self._failed_starts = 0
        self._start_at_monotonic = 0.0
        self._start_deadline_monotonic = 0.0
        self.ready: protocol.Ready | None = None
        self.trouble = ""

    def look_after(self) -> None:
        """Starts a child where there is none; gives up on one that does not get ready."""
        now = self._monotonic()
        if self._process is None:
            if now >= self._start_at_monotonic:
                self._start()
        elif self.ready is None and now >= self._start_deadline_monotonic:
            self.kill(f"not ready within {self._settings.start_seconds:g} s")

    def model(self, model_id: str) -> ModelProfile | None:
        """A model by id. The folders are read at a start, and again only for an unknown id."""
        if model_id not in self._catalogue.models:
            self._catalogue = load_catalogue(self._settings.model_dirs)
        return self._catalogue.models.get(model_id)

    def takes(self, placement: Placement) -> bool:
        """Whether the child can run that placement: weights do not move in a living child."""
        return self._placement in (None, placement)

    def run(self, command: protocol.Run) -> None:
        """Hands a job to the child."""
        self._placement = command.plan.placement
        self._send(command)

    def cancel(self, job_id: str) -> None:
        """Asks the child to drop a job at its next step."""
        self._send(protocol.Cancel(job_id=job_id))

    def kill(self, reason: str) -> None:
        """Ends the child; its exit is then handled like any other."""
        if self._process is not None and not self._kill_reason:
            self._kill_reason = reason
            self._process.kill()

    def close(self) -> None:
        """Ends the child for good."""
        if self._process is not None:
            self._process.kill()
            log.info("engine.stopped", how=self._process.exit_reason())
            self._retire()

    def _send(self, command: protocol.Run | protocol.Cancel) -> None:
        if self._process is None:
            raise RuntimeError("there is no engine to send to")
        self._process.send(command)

    def _start(self) -> None:
        settings = self._settings
        catalogue = self._catalogue = load_catalogue(settings.model_dirs)
        model = catalogue.default(settings.default_model)
        if model is None:
            reasons = [f"{name}: {reason}" for name, reason in catalogue.broken.items()]
            places = " or ".join(map(str, settings.model_dirs))
            self.trouble = "; ".join([f"no model that works in {places}", *reasons])
            self._postpone_start()
            return
        self._process = EngineProcess(settings.worker_python, settings.as_environment())
        self._start_deadline_monotonic = self._monotonic() + settings.start_seconds
        events, output, exited = self._process.descriptors
        self._selector.register(events, selectors.EVENT_READ, self._read_events)
        self._selector.register(output, selectors.EVENT_READ, self._read_output)
        self._selector.register(exited, selectors.EVENT_READ, self._exited)
        self._process.send(
            protocol.Start(
                backend=settings.backend,
                compute_device=settings.compute_device,
                torch_threads=settings.torch_threads,
                artefacts_dir=str(settings.artefacts_dir),
                cache_dir=str(settings.cache_dir),
                model=model,
            )
        )
        log.info("engine.started", pid=self._process.pid, model=model.id)

    def _postpone_start(self) -> None:
        steps = RESTART_BACKOFF_SECONDS
        pause_seconds = steps[min(self._failed_starts, len(steps) - 1)]
        self._failed_starts += 1
        self._start_at_monotonic = self._monotonic() + pause_seconds

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
            self.kill("it sent a line that is no event")

    def _handle(self, event: protocol.Event) -> None:
        match event:
            case protocol.Ready():
                self.ready, self.trouble, self._failed_starts = event, "", 0
                log.info("engine.proven", device=event.device.name, seconds=event.proof_seconds)
                self._on_ready()
            case protocol.StartFailed():
                self._kill_reason = event.detail
            case _:
                self._on_progress(event)

    def _read_output(self) -> None:
        if self._process is not None:
            for line in self._process.drain_output():
                log.debug("engine.printed", line=line)

    def _exited(self) -> None:
        """Hands on what the child still said, then what became of it."""
        process = self._process
        if process is None or not process.exited:
            return
        self._read_events()
        self._read_output()
        reason = self._kill_reason or process.exit_reason()
        log.error("engine.died", reason=reason, output=process.output_tail)
        if self.ready is None:
            self.trouble = f"the engine did not start: {reason}"
        self._retire()
        self._postpone_start()
        self._on_death(reason)

    def _retire(self) -> None:
        if self._process is not None:
            for descriptor in self._process.descriptors:
                self._selector.unregister(descriptor)
            self._process.close()
        self._process = self._placement = self.ready = None
        self._kill_reason = ""
        self._misspoke = False
