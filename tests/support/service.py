"""A real service for tests: ``rockiln serve`` with its api, worker and engine, on a free port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import psutil

ENGINE_MODULE = "rockiln.engine.child"
READY_SECONDS = 90.0
T = TypeVar("T")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def eventually(look: Callable[[], T | None], what: str, *, seconds: float = 60.0) -> T:
    """The first true answer of ``look``; fails with ``what`` when none comes in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = look()
        if answer:
            return answer
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds:g} s: {what}")


class Service:
    """One running service. ``settings`` are ROCKILN_* variables without the prefix."""

    def __init__(self, data_dir: Path, models_dir: Path, **settings: Any) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.data_dir = data_dir
        self.log = data_dir.parent / f"{data_dir.name}.log"
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "ROCKILN_PUBLIC_DIR": str(data_dir / "public"),
            "ROCKILN_DATA_DIR": str(data_dir),
            "ROCKILN_BUNDLED_MODELS_DIR": str(models_dir),
            "ROCKILN_TORCH_THREADS": "1",
            "ROCKILN_FETCHER_ENABLED": "false",
            **{f"ROCKILN_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        if error is not None:
            sys.stderr.write(self.log.read_text()[-20_000:])

    def start(self, *, wait: bool = True) -> None:
        """Starts the processes; returns when the service says that it is ready."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rockiln", "serve", "--listen", f"127.0.0.1:{self.port}"],
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        eventually(self.is_ready, "the service is ready", seconds=READY_SECONDS)

    def is_ready(self) -> bool:
        return self._says_ok("/readyz")

    def is_alive(self) -> bool:
        return self._says_ok("/livez")

    def _says_ok(self, path: str) -> bool:
        try:
            return httpx.get(f"{self.url}{path}", timeout=5).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        """Ends the service as an operator does."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def post(self, path: str = "/generate", **request: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", timeout=120, **request)

    def get(self, path: str, **request: Any) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=30, **request)

    def delete(self, path: str) -> httpx.Response:
        return httpx.delete(f"{self.url}{path}", timeout=30)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """``rockiln …`` beside the service, with its settings."""
        return subprocess.run(
            [sys.executable, "-m", "rockiln", *words],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=READY_SECONDS,
            check=False,
        )

    def files(self, folder: str) -> set[Path]:
        """Of the data folder, half-written ones included."""
        return {path for path in (self.data_dir / folder).rglob("*") if path.is_file()}

    def submit(self, **body: Any) -> str:
        """Sends a job without waiting for it; returns its id."""
        answer = self.post(json=body, headers={"Prefer": "respond-async"})
        assert answer.status_code == httpx.codes.ACCEPTED, answer.text
        job_id: str = answer.json()["id"]
        return job_id

    def job(self, job_id: str) -> dict[str, Any]:
        job: dict[str, Any] = self.get(f"/jobs/{job_id}").json()
        return job

    def wait_for(self, job_id: str, *states: str, seconds: float = 90.0) -> dict[str, Any]:
        """The job as soon as it is in one of ``states``."""

        def look() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["state"] in states else None

        return eventually(look, f"job {job_id} in {' or '.join(states)}", seconds=seconds)

    def processes(self, word: str) -> list[psutil.Process]:
        """Processes of this service with ``word`` in their command line."""
        if self._process is None:
            return []
        found = []
        for process in psutil.Process(self._process.pid).children(recursive=True):
            try:
                if any(word in part for part in process.cmdline()):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def engine(self) -> psutil.Process:
        """The engine child that runs now."""
        return eventually(
            lambda: next(iter(self.processes(ENGINE_MODULE)), None), "an engine process"
        )

    def kill_all(self) -> None:
        """SIGKILL of every process of the service, at once."""
        if self._process is None:
            return
        root = psutil.Process(self._process.pid)
        victims = [*root.children(recursive=True), root]
        for victim in victims:
            with suppress(psutil.NoSuchProcess):
                victim.send_signal(signal.SIGKILL)
        psutil.wait_procs(victims, timeout=30)
        self._process.wait(30)
        self._process = None

    def kill(self, process: psutil.Process) -> None:
        """SIGKILL, and gone on return."""
        process.send_signal(signal.SIGKILL)
        process.wait(30)
