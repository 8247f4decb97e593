"""A real engine child, spoken to over its pipes. Every wait has a deadline."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from rockiln.domain.model import ModelProfile
from rockiln.worker import protocol

SOURCE = Path(__file__).resolve().parents[2] / "service" / "src"
DEADLINE_SECONDS = 90.0
_READ_BYTES = 1 << 16
Kind = TypeVar("Kind")


class ChildProcess:
    """``python -m rockiln.engine.child`` with pipes; killed at the end of the block."""

    def __init__(self, work_dir: Path) -> None:
        self._work_dir = work_dir
        work_dir.mkdir(parents=True, exist_ok=True)
        events, child_end = os.pipe()
        self.printed = (work_dir / "printed.txt").open("w+b")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rockiln.engine.child", str(child_end)],
            stdin=subprocess.PIPE,
            stdout=self.printed,
            stderr=subprocess.STDOUT,
            pass_fds=(child_end,),
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
        )
        os.close(child_end)
        self._events = events
        self._rest = b""
        self._lines: list[bytes] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
        os.close(self._events)
        self.printed.close()

    @property
    def artefacts_dir(self) -> Path:
        return self._work_dir / "artefacts"

    def start(self, model: ModelProfile, **changes: object) -> None:
        start = protocol.Start(
            backend="cpu",
            compute_device="auto",
            torch_threads=1,
            artefacts_dir=str(self.artefacts_dir),
            cache_dir=str(self._work_dir / "cache"),
            model=model,
        )
        self.send(start.model_copy(update=changes))

    def send(self, command: protocol.Start | protocol.Run | protocol.Cancel) -> None:
        self.write(protocol.encode(command))

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def close_commands(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def next_event(self) -> protocol.Event | None:
        """The next event; None once the child has closed the pipe."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not self._lines:
            readable, _, _ = select.select([self._events], [], [], deadline - time.monotonic())
            assert readable, f"no event in {DEADLINE_SECONDS} s; printed: {self.output()}"
            chunk = os.read(self._events, _READ_BYTES)
            if not chunk:
                return None
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            self._lines += whole
        return protocol.decode_event(self._lines.pop(0))

    def expect(self, kind: type[Kind]) -> Kind:
        """The next event, which has to be of this kind; what is in memory is told in between."""
        event = self.next_event()
        while isinstance(event, protocol.ModelsInMemory) and kind is not protocol.ModelsInMemory:
            event = self.next_event()
        assert isinstance(event, kind), f"{event}; printed: {self.output()}"
        return event

    def events_until(
        self, kind: type[protocol.JobEnded] | type[protocol.JobFailed]
    ) -> list[object]:
        """Events up to and with the first of this kind."""
        events: list[object] = []
        while not events or not isinstance(events[-1], kind):
            event = self.next_event()
            assert event is not None, f"the child left; printed: {self.output()}"
            events.append(event)
        return events

    def wait(self) -> int:
        """The exit status; negative is a signal."""
        return self.process.wait(timeout=DEADLINE_SECONDS)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def output(self) -> str:
        """What the child and its libraries printed so far."""
        self.printed.flush()
        return (self._work_dir / "printed.txt").read_text(errors="replace")
