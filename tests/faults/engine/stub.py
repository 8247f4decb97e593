"""An engine child that speaks the real protocol, draws nothing and fails where it is told to.

Stands in for the interpreter (``worker_python``) of a supervisor under test: its last argument is
the descriptor for events. It imports next to nothing, so that a thousand of it start quickly.
FAULTS_BENCH names a folder with, if wanted:

    starts.json    a list with the switches of each start, the last one repeating
    device.json    the device it says it found
    starts         (written) one byte per start
    ledger         (written) a line of JSON for each thing it did: pid, job, attempt, what, …
"""

from __future__ import annotations

import atexit
import ctypes
import errno
import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from switches import Switch, parse

from rockiln.engine.lifeline import bind_to_parent, leave, write_line
from rockiln.store.artefacts import ArtefactStore

_DEVICE = {"kind": "cpu", "name": "stub", "total_bytes": 1 << 34, "threads": 1}
_PICTURE_BYTES = 20_000
_MB = 1 << 20
_held: list[bytearray] = []


class Bench:
    """The folder that this engine is told by and writes to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ledger = os.open(folder / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def start(self) -> list[Switch]:
        """The switches of this start."""
        counter = os.open(self._folder / "starts", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(counter, b".")
        number = os.fstat(counter).st_size - 1
        os.close(counter)
        file = self._folder / "starts.json"
        cues = json.loads(file.read_text()) if file.exists() else [""]
        return parse(cues[min(number, len(cues) - 1)])

    def device(self) -> dict[str, Any]:
        file = self._folder / "device.json"
        return json.loads(file.read_text()) if file.exists() else _DEVICE

    def note(self, what: str, run: dict[str, Any], **facts: Any) -> None:
        line = {"pid": os.getpid(), "what": what, "job": run["job_id"], "attempt": run["attempt"]}
        os.write(self._ledger, json.dumps(line | facts).encode() + b"\n")


class Commands:
    """Lines on standard input; its end means: leave."""

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[bytes] = []
        self._waiting = selectors.DefaultSelector()
        self._waiting.register(0, selectors.EVENT_READ)

    def next(self) -> dict[str, Any]:
        while not self._lines:
            self._read()
        return json.loads(self._lines.pop(0))

    def poll(self) -> dict[str, Any] | None:
        while self._waiting.select(0):
            self._read()
        return json.loads(self._lines.pop(0)) if self._lines else None

    def _read(self) -> None:
        chunk = os.read(0, 1 << 16)
        if not chunk:
            leave(0)
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        self._lines += whole


class CancelledError(Exception):
    """The supervisor wants the job dropped."""


class UnfinishedError(Exception):
    """The job is to be told as ended without its picture."""


class FailedError(Exception):
    """The job is to be told as failed."""


class Stub:
    """The engine. ``events`` is the descriptor that the supervisor reads."""

    def __init__(self, events: int, bench: Bench) -> None:
        self._events = events
        self._bench = bench
        self._commands = Commands()
        self._always = self._switches = bench.start()
        self._at_exit = False

    def work(self) -> NoReturn:
        start = self._commands.next()
        self._artefacts = ArtefactStore(Path(start["artefacts_dir"]))
        plan = start["plan"] or {"rungs": {"denoise": "full", "decode": "full"}}
        try:
            self._reach("start", {"job_id": "", "attempt": 0, "plan": plan})
        except FailedError as failure:
            code, detail, *_ = failure.args
            self._send(event="start_failed", code=code, detail=detail)
            leave(1)
        device = self._bench.device()
        self._send(event="ready", device=device, versions={"torch": "none"}, proof_seconds=0.0)
        while True:
            command = self._commands.next()
            if command["op"] == "run":
                self._run(command)

    def _run(self, run: dict[str, Any]) -> None:
        self._switches = [*self._always, *parse(run["parameters"]["prompt"])]
        job = run["job_id"]
        self._send(event="job_taken", job_id=job)
        try:
            for task in run["pictures"]:
                self._picture(run, task)
        except UnfinishedError:
            self._send(event="job_ended", job_id=job, outcome="encoded")
            return
        except CancelledError:
            self._send(event="job_ended", job_id=job, outcome="cancelled")
            return
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            self._send(event="job_failed", job_id=job, code="storage_full", detail=str(error),
                       stage="encode")  # fmt: skip
            return
        except FailedError as failure:
            code, detail, *stage = failure.args
            stage = {"stored": "decode", "exit": "encode"}.get(stage[0], stage[0])
            self._send(event="job_failed", job_id=job, code=code, detail=detail, stage=stage)
            return
        self._reach("exit", run)
        if self._at_exit:
            sys.exit(0)  # the normal way out, with everything that is registered for it
        self._send(event="job_ended", job_id=job, outcome="encoded")

    def _picture(self, run: dict[str, Any], task: dict[str, Any]) -> None:
        job, index = run["job_id"], task["index"]
        steps = run["parameters"]["num_inference_steps"]
        name = task["latents"]
        if name is None:
            self._reach("encode_prompt", run)
            self._send(event="denoise_started", job_id=job)
            for step in range(1, steps + 1):
                self._reach("denoise", run, step)
                self._bench.note("step", run, index=index, step=step)
                self._send(event="step_done", job_id=job, index=index, step=step, steps=steps)
            name = self._artefacts.put_latents(job, index, f"latents of {job} {index}".encode())
            self._send(event="latents_stored", job_id=job, index=index, latents=name)
        else:
            kept = self._artefacts.latents_path(name).read_bytes()
            if kept != f"latents of {job} {index}".encode():
                raise FailedError("engine_error", f"torn latents: {kept!r}", "decode")
        self._reach("stored", run)
        self._send(event="decode_started", job_id=job, index=index)
        self._reach("decode", run)
        self._bench.note("decoded", run, index=index, rungs=run["plan"]["rungs"])
        if run["purpose"] == "warm_up":
            return
        self._send(event="encode_started", job_id=job, index=index)
        self._reach("encode", run)
        data = (f"picture {index} of {job} ".encode() * _PICTURE_BYTES)[:_PICTURE_BYTES]
        digest = self._artefacts.put_picture(data, run["parameters"]["format"])
        self._bench.note("encoded", run, index=index)
        self._send(
            event="picture_encoded",
            job_id=job,
            index=index,
            digest=digest,
            size_bytes=len(data),
            details={"resumed": task["latents"] is not None, "rungs": run["plan"]["rungs"]},
            warnings=[],
            seconds={},
        )

    def _reach(self, stage: str, run: dict[str, Any], step: int = 0) -> None:
        """Obeys a cancel, then does what the switches want here."""
        command = self._commands.poll() if stage not in {"start", "exit"} else None
        if command is not None and (command["op"], command["job_id"]) == ("cancel", run["job_id"]):
            raise CancelledError
        rungs = run["plan"]["rungs"]
        for switch in self._switches:
            if switch.strikes(stage, step, run["attempt"], rungs):
                if switch.action != "slow":
                    self._bench.note(switch.action, run, stage=stage, at=time.time())
                self._act(switch)

    def _act(self, switch: Switch) -> None:
        if switch.action in _DEATHS:
            _DEATHS[switch.action](switch.value)
        elif switch.action in _FAILURES:
            raise _FAILURES[switch.action](switch)
        elif switch.action == "heap":
            self._at_exit = switch.stage == "exit"
            atexit.register(break_the_heap) if self._at_exit else break_the_heap()
        elif switch.action == "gibberish":
            write_line(self._events, b'{"event": "wisdom"}\n')
        elif switch.action == "torn":
            self._tear()

    def _tear(self) -> None:
        """What an engine that writes under the final name leaves when it is killed."""
        digest = "ab" * 32
        path = self._artefacts.picture_path(digest, "png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half of")
        os.kill(os.getpid(), signal.SIGKILL)

    def _send(self, **event: Any) -> None:
        write_line(self._events, json.dumps(event).encode() + b"\n")


def break_the_heap() -> None:
    """Frees what was never allocated: glibc says so and aborts."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    libc.free(libc.malloc(64) + 8)


def say_and_abort(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
    os.abort()


def example(number: int) -> str:
    from rockiln.worker.classify import signatures  # noqa: PLC0415 (for the few that want it)

    return signatures()[number].example


def hang(_: str) -> None:
    while True:
        signal.pause()


def hang_deaf(_: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        time.sleep(3600)


def out_of_memory(switch: Switch) -> Exception:
    words = "OutOfMemoryError: HIP out of memory. Tried to allocate 2.00 GiB."
    return FailedError("gpu_oom", words, switch.stage)


_BLOCK_ALLOCATOR = "HSA exception: MemoryRegion::BlockAllocator::alloc failed."
_DEATHS: dict[str, Callable[[str], object]] = {
    "segv": lambda _: ctypes.string_at(0),
    "abort": lambda _: os.abort(),
    "kill": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda value: os._exit(int(value or 1)),
    "hang": hang,
    "silent": hang,
    "deaf": hang_deaf,
    "oomdie": lambda _: say_and_abort(_BLOCK_ALLOCATOR),
    "say": lambda value: say_and_abort(example(int(value))),
    "leak": lambda value: _held.append(bytearray(b"x") * (int(value) * _MB)),
    "slow": lambda value: time.sleep(int(value) / 1000),
}
_FAILURES: dict[str, Callable[[Switch], Exception]] = {
    "oom": out_of_memory,
    "raise": lambda switch: FailedError(switch.value, "it was told to", switch.stage),
    "half": lambda _: UnfinishedError(),
}


if __name__ == "__main__":
    bind_to_parent()
    Stub(int(sys.argv[-1]), Bench(Path(os.environ["FAULTS_BENCH"]))).work()
