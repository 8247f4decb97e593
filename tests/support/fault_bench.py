"""A store, a supervisor on it, and the fault-injecting engine below."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from rockiln.settings import Settings
from rockiln.store.records import Job, QueueLimits, Worker
from rockiln.store.store import Store
from support.paper_model import write_paper_model
from support.parameters import parameters
from support.service import eventually, free_port

STUB = Path(__file__).resolve().parents[1] / "faults" / "engine" / "stub.py"
RUN = "import sys; from rockiln.settings import Settings; from rockiln.worker.supervisor import run"
# What a real worker needs a minute for takes a test no longer than it must.
FAST: dict[str, Any] = {
    "restart_backoff_seconds": 0.0,
    "restart_backoff_max_seconds": 0.0,
    "restart_budget": 100_000,
    "drain_seconds": 0.2,
}


def stub_python(folder: Path) -> Path:
    """An interpreter that is the fault-injecting engine."""
    python = folder / "python"
    # -I and -S leave out what a stub has no use for; the sources are named instead.
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {STUB} "$@"\n')
    python.chmod(0o755)
    return python


class Api:
    """gunicorn with the api, started and killed at will."""

    def __init__(self, settings: Settings, log: Path) -> None:
        port = free_port()
        address = f"127.0.0.1:{port}"
        chosen = settings.model_copy(update={"published_address": address, "api_bind": address})
        self._environment = {
            **chosen.as_environment(),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx.Client(timeout=5)
        self.url = f"http://{address}"

    def __enter__(self) -> Self:
        self.start()
        eventually(self.is_alive, "the api answers")
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rockiln", "api"],
                env=self._environment,
                stdout=log,
                stderr=log,
            )

    def is_alive(self) -> bool:
        try:
            return self._client.get(f"{self.url}/livez").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def kill(self, *, arbiter: bool) -> None:
        """SIGKILL of gunicorn's workers, and of their parent if wanted."""
        assert self._process is not None
        root = psutil.Process(self._process.pid)
        victims = [*root.children(), root] if arbiter else root.children()
        for victim in victims:
            with suppress(psutil.NoSuchProcess):
                victim.send_signal(signal.SIGKILL)
        psutil.wait_procs([victim for victim in victims if victim != root], timeout=30)
        if arbiter:
            self._process.wait(30)


class FaultBench:
    """Starts supervisors, submits jobs, looks at what came of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bench = folder / "bench"
        self.bench.mkdir(parents=True)
        self.models_dir = folder / "models"
        write_paper_model(self.models_dir / "paper")
        self.settings: Settings
        self.store: Store
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def prepare(self, *starts: str, device: dict[str, Any] | None = None, **settings: Any) -> None:
        """Makes the store. ``starts``: the switches of each start, the last one repeating."""
        (self.bench / "starts.json").write_text(json.dumps(starts or [""]))
        if device is not None:
            (self.bench / "device.json").write_text(json.dumps(device))
        self.settings = Settings(
            public_dir=self.folder,
            data_dir=self.folder / "data",
            bundled_models_dir=self.models_dir,
            default_model="paper",
            worker_python=stub_python(self.folder),
            **(FAST | settings),
        )
        self.store = Store(self.settings)
        self.store.prepare()

    def start(self, *starts: str, device: dict[str, Any] | None = None, **settings: Any) -> None:
        """Makes the store and starts a supervisor on it."""
        self.prepare(*starts, device=device, **settings)
        self.supervise()

    def supervise(self, **settings: Any) -> subprocess.Popen[bytes]:
        """Starts a supervisor."""
        chosen = self.settings.model_copy(update=settings)
        environment = {
            **chosen.as_environment(),
            "PYTHONPATH": os.pathsep.join(sys.path),
            "FAULTS_BENCH": str(self.bench),
        }
        with (self.folder / f"{chosen.worker_name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", f"{RUN}; sys.exit(run(Settings()))"],
                env=environment,
                stdout=log,
                stderr=log,
            )
        self.processes[chosen.worker_name] = process
        return process

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The first supervisor."""
        return next(iter(self.processes.values()))

    def engine(self, process: subprocess.Popen[bytes] | None = None) -> psutil.Process | None:
        """The engine that lives now, if one does."""
        try:
            children = psutil.Process((process or self.process).pid).children()
        except psutil.NoSuchProcess:
            return None
        return children[0] if children else None

    def next_engine(self, dead: psutil.Process) -> psutil.Process:
        """The engine that follows a dead one."""

        def look() -> psutil.Process | None:
            found = self.engine()
            return found if found is not None and found.pid != dead.pid else None

        return eventually(look, "the next engine")

    def proven_after(self, moment: float) -> Worker:
        """A worker that has proven itself since."""
        return self.worker(lambda worker: (worker.proof_at or 0.0) > moment)

    def api(self) -> Api:
        """An api on this store."""
        return Api(self.settings, self.folder / "api.log")

    def submit(self, prompt: str = "a boat", **changes: Any) -> Job:
        """Accepts a job."""
        asked = parameters(prompt=prompt, model="paper", **changes)
        limits = QueueLimits(max_jobs=100_000, max_seconds=1e9)
        job = self.store.jobs.submit(asked, estimated_seconds=1.0, limits=limits)
        self.store.wake("worker")
        return job

    def ended(self, job: Job, *, seconds: float = 30) -> Job:
        def look() -> Job | None:
            now = self.store.jobs.get(job.id)
            return now if now.ended else None

        return eventually(look, f"job {job.id} ends", seconds=seconds)

    def state(self, job: Job) -> str:
        return self.store.jobs.get(job.id).state

    def worker(self, wanted: Callable[[Worker], bool], *, seconds: float = 30) -> Worker:
        def look() -> Worker | None:
            return next(filter(wanted, self.store.workers.all()), None)

        return eventually(look, "the worker says so", seconds=seconds)

    def ledger(self, what: str = "") -> list[dict[str, Any]]:
        """What the engines did, in order."""
        file = self.bench / "ledger"
        lines = map(json.loads, file.read_text().splitlines()) if file.exists() else ()
        return [line for line in lines if what in {"", line["what"]}]

    def starts(self) -> int:
        """How many engines were started."""
        file = self.bench / "starts"
        return file.stat().st_size if file.exists() else 0

    def log(self) -> str:
        return "".join(file.read_text() for file in self.folder.glob("*.log"))

    def stop(self) -> list[int]:
        """Stops the supervisors; their exit statuses."""
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        statuses = [process.wait(30) for process in self.processes.values()]
        self.store.close()
        return statuses
