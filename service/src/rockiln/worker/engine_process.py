"""Handle of one engine child: a fresh interpreter with torch, spoken to by lines of JSON."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from rockiln.worker.protocol import Cancel, Event, Run, Start, decode_event, encode

_OUTPUT_TAIL_LINES = 40
_READ_BYTES = 1 << 16


class LineReader:
    """Whole lines out of a non-blocking descriptor."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self._rest = b""

    def lines(self) -> Iterator[bytes]:
        """The lines that have arrived; what follows the last line break waits for more."""
        while True:
            try:
                chunk = os.read(self.descriptor, _READ_BYTES)
            except BlockingIOError:
                return
            if not chunk:
                return
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            yield from whole


class EngineProcess:
    """A spawned engine child. It is never forked from a process with threads or a GPU.

    Args:
        python: interpreter that has torch.
        environment: the child's whole environment.
    """

    def __init__(self, python: Path, environment: dict[str, str]) -> None:
        events, child_end = os.pipe()
        try:
            self._process = subprocess.Popen(
                [str(python), "-m", "rockiln.engine.child", str(child_end)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(child_end,),
                env=environment,
            )
        except BaseException:
            os.close(events)
            raise
        finally:
            os.close(child_end)
        self._events = LineReader(events)
        self._output = LineReader(cast("IO[bytes]", self._process.stdout).fileno())
        self._exit = os.pidfd_open(self._process.pid)
        self._tail: deque[str] = deque(maxlen=_OUTPUT_TAIL_LINES)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def descriptors(self) -> tuple[int, int, int]:
        """What to wait on: events, output, exit."""
        return self._events.descriptor, self._output.descriptor, self._exit

    def send(self, command: Start | Run | Cancel) -> None:
        """Sends a command. A child that died meanwhile is noticed by its exit, not here."""
        pipe = cast("IO[bytes]", self._process.stdin)
        try:
            pipe.write(encode(command))
            pipe.flush()
        except BrokenPipeError:
            return

    def events(self) -> Iterator[Event]:
        """Events that have arrived. Raises pydantic.ValidationError on a line that is none."""
        for line in self._events.lines():
            yield decode_event(line)

    def drain_output(self) -> list[str]:
        """What the child printed since the last call; the end of it is kept for a fault report."""
        lines = [line.decode(errors="replace") for line in self._output.lines()]
        self._tail.extend(lines)
        return lines

    @property
    def output_tail(self) -> list[str]:
        return list(self._tail)

    @property
    def exited(self) -> bool:
        return self._process.poll() is not None

    def exit_reason(self) -> str:
        """How the child ended, in words: "signal SIGKILL" or "exit status 1"."""
        status = self._process.wait()
        return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"

    def kill(self) -> None:
        """Sends SIGKILL. Whoever waits on the descriptors hears of the exit."""
        self._process.kill()

    def close(self) -> None:
        """Releases the descriptors of a child that has exited."""
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                cast("IO[bytes]", pipe).close()
            except BrokenPipeError:
                continue  # a command was still in the buffer; nobody is there to read it
        os.close(self._events.descriptor)
        os.close(self._exit)
