"""What the store knows, as numbers for Prometheus. Read when asked, at most once a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from rockiln.domain.fault import FaultCode
from rockiln.domain.ladder import DecodeRung, DenoiseRung
from rockiln.settings import Settings
from rockiln.store.records import WorkerState
from rockiln.store.store import Store

_KEPT_SECONDS = 1.0
_EVENTS_PAGE = 1000
_STAGES = (
    "load",
    "encode_prompt",
    "prepare_latents",
    "denoise",
    "store_latents",
    "decode",
    "postprocess",
)
# From a small picture's text to a first decode that searches for kernels.
_STAGE_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800)
_RUNG_KEYS = 500
# More workers than that on one host is a mistake, not a fleet.
_WORKERS = 32
# The worker's own words: of its device, of the container's libraries and of the host's driver.
_WORKER_LABELS = ("worker", "backend", "capability", "torch", "rocm", "driver")


class StoreMetrics(Collector):
    """Jobs, queue, faults, rungs and workers. Labels come from closed sets."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._families: list[Metric] = []
        self._registry = CollectorRegistry()
        self._stages = Histogram(
            "rockiln_stage_seconds",
            "Time of a published picture in each stage.",
            ("stage",),
            buckets=_STAGE_SECONDS,
            registry=self._registry,
        )
        for stage in _STAGES:
            self._stages.labels(stage)  # at zero: a rate does not see a series begin
        self._seen_seq: int | None = None
        self._read_at = -_KEPT_SECONDS

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not read the store."""
        return []

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            now = self._monotonic()
            if now - self._read_at >= _KEPT_SECONDS:
                self._read_at = now
                self._families = self._read()
            yield from self._families
            yield from self._registry.collect()

    def _read(self) -> list[Metric]:
        up = GaugeMetricFamily("rockiln_store_up", "Whether the store could be read.")
        clocks = GaugeMetricFamily(
            "rockiln_clock_seconds", "What each clock is set to.", labels=["clock"]
        )
        for name, seconds in self._settings.clocks.items():
            clocks.add_metric([name.removesuffix("_seconds")], seconds)
        try:
            self._count_stages()
            families = [*self._jobs(), *self._faults(), *self._rungs(), *self._workers()]
        except (SQLAlchemyError, OSError):
            up.add_metric([], 0)
            return [up, clocks]
        up.add_metric([], 1)
        return [up, clocks, *families]

    def _count_stages(self) -> None:
        """Adds the pictures published since the last look; those of before this process are not."""
        events = self._store.events
        if self._seen_seq is None:
            self._seen_seq = events.last_seq()
        while page := events.after(None, self._seen_seq, _EVENTS_PAGE):
            self._seen_seq = page[-1].seq
            for event in page:
                for stage, seconds in event.payload.get("seconds", {}).items():
                    if event.kind == "published" and stage in _STAGES:
                        self._stages.labels(stage).observe(seconds)

    def _jobs(self) -> Iterator[Metric]:
        jobs = GaugeMetricFamily("rockiln_jobs", "Kept jobs by state.", labels=["state"])
        for state, count in self._store.jobs.counts().items():
            jobs.add_metric([state], count)
        yield jobs
        queue = self._store.jobs.queue()
        depth = GaugeMetricFamily("rockiln_queue_jobs", "Jobs in hand.", labels=["part"])
        seconds = GaugeMetricFamily(
            "rockiln_queue_estimated_seconds", "Their estimated work.", labels=["part"]
        )
        for part, count, estimate in (
            ("waiting", queue.waiting, queue.waiting_seconds),
            ("running", queue.running, queue.running_seconds),
        ):
            depth.add_metric([part], count)
            seconds.add_metric([part], estimate)
        yield depth
        yield seconds
        disk = GaugeMetricFamily("rockiln_disk_free_bytes", "Free space for artefacts.")
        disk.add_metric([], self._store.artefacts.free_bytes())
        yield disk

    def _faults(self) -> Iterator[Metric]:
        faults = GaugeMetricFamily(
            "rockiln_failed_attempts", "Attempts that are kept, by class of fault.", labels=["code"]
        )
        counts = self._store.attempts.counts()
        for code in FaultCode:
            faults.add_metric([code], counts.get(code, 0))
        yield faults
        refusals = GaugeMetricFamily("rockiln_refusals", "Kinds of request that are refused.")
        refusals.add_metric([], len(self._store.refusals.all(self._clock())))
        yield refusals

    def _rungs(self) -> Iterator[Metric]:
        rungs = GaugeMetricFamily(
            "rockiln_rung_keys", "Kinds of job by the rung that works.", labels=["ladder", "rung"]
        )
        known = self._store.rungs.all(_RUNG_KEYS)
        for denoise in DenoiseRung:
            count = sum(kind.rungs.denoise is denoise for kind in known)
            rungs.add_metric(["denoise", denoise], count)
        for decode in DecodeRung:
            count = sum(kind.rungs.decode is decode for kind in known)
            rungs.add_metric(["decode", decode], count)
        yield rungs
        peak = GaugeMetricFamily(
            "rockiln_memory_peak_bytes", "The most device memory that a remembered kind took."
        )
        peak.add_metric([], max((kind.peak_bytes or 0 for kind in known), default=0))
        yield peak
        kernels = GaugeMetricFamily(
            "rockiln_kernel_cache_jobs",
            "Jobs of remembered kinds: the first of its kind compiles its kernels, a miss.",
            labels=["result"],
        )
        kernels.add_metric(["miss"], len(known))
        kernels.add_metric(["hit"], sum(kind.successes - 1 for kind in known))
        yield kernels

    def _workers(self) -> Iterator[Metric]:
        states = GaugeMetricFamily(
            "rockiln_worker_state", "1 for the state a worker is in.", labels=["worker", "state"]
        )
        heartbeat = GaugeMetricFamily(
            "rockiln_worker_heartbeat_age_seconds", "Since its last word.", labels=["worker"]
        )
        deaths = GaugeMetricFamily(
            "rockiln_worker_recent_deaths", "Engines that died lately.", labels=["worker"]
        )
        memory = GaugeMetricFamily(
            "rockiln_worker_device_bytes", "Memory of its device.", labels=["worker"]
        )
        models = GaugeMetricFamily(
            "rockiln_worker_models", "Models in its memory.", labels=["worker", "pinned"]
        )
        model_memory = GaugeMetricFamily(
            "rockiln_worker_models_bytes", "What they hold between jobs.", labels=["worker", "of"]
        )
        info = GaugeMetricFamily(
            "rockiln_worker_info", "1, with the versions that must fit.", labels=_WORKER_LABELS
        )
        for worker in self._store.workers.all()[:_WORKERS]:
            device, versions = worker.device or {}, worker.versions or {}
            memory.add_metric([worker.name], device.get("total_bytes", 0))
            facts = {**device, **versions, "worker": worker.name}
            info.add_metric([str(facts.get(label, "")) for label in _WORKER_LABELS], 1)
            for state in WorkerState:
                states.add_metric([worker.name, state], worker.state is state)
            heartbeat.add_metric([worker.name], max(0.0, self._clock() - worker.heartbeat_at))
            restarts = (worker.health or {}).get("restarts", {})
            deaths.add_metric([worker.name], restarts.get("deaths_in_window", 0))
            loaded = (worker.health or {}).get("models", [])
            for pinned in (False, True):
                count = sum(model["pinned"] is pinned for model in loaded)
                models.add_metric([worker.name, str(pinned).lower()], count)
            for memory_of in ("device", "host"):
                held = sum(model[f"{memory_of}_bytes"] for model in loaded)
                model_memory.add_metric([worker.name, memory_of], held)
        yield states
        yield heartbeat
        yield deaths
        yield memory
        yield models
        yield model_memory
        yield info
