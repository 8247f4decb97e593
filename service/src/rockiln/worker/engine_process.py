"""Handle of one engine child: a fresh interpreter with torch, spoken to by lines of JSON.

Nothing here blocks: not a child that stopped reading, not one that cannot be killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from rockiln.worker.protocol import Cancel, Event, Run, Start, decode_event, encode

# A dump of all stacks of a process with torch has some hundred lines.
_OUTPUT_TAIL_LINES = 400
_READ_BYTES = 1 << 16
_READS_A_CALL = 16
_LINE_BYTES = 1 << 20


class LineReader:
    """Whole lines out of a non-blocking descriptor."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self._rest = b""

    def lines(self) -> Iterator[bytes]:
        """Lines that have arrived; what follows the last line break waits for more.

        One call takes a part of what an endless talker says, so that others have their turn too.
        """
        for _ in range(_READS_A_CALL):
            try:
                chunk = os.read(self.descriptor, _READ_BYTES)
            except BlockingIOError:
                return
            if not chunk:
                return
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            yield from whole
            if len(self._rest) > _LINE_BYTES:
                whole, self._rest = [self._rest], b""
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
                bufsize=0,
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
        os.set_blocking(self._commands.fileno(), False)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def descriptors(self) -> tuple[int, int, int]:
        """What to wait on: events, output, exit."""
        return self._events.descriptor, self._output.descriptor, self._exit

    @property
    def _commands(self) -> IO[bytes]:
        return cast("IO[bytes]", self._process.stdin)

    def send(self, command: Start | Run | Cancel) -> bool:
        """Sends a command; False if the child does not take it in.

        A child that died meanwhile is noticed by its exit, not here.
        """
        line = encode(command)
        try:
            return os.write(self._commands.fileno(), line) == len(line)
        except BrokenPipeError:
            return True
        except BlockingIOError:
            return False

    def end_commands(self) -> None:
        """Tells a healthy child to leave."""
        self._commands.close()

    def events(self) -> Iterator[Event]:
        """Events that have arrived. Raises pydantic.ValidationError on a line that is none."""
        for line in self._events.lines():
            yield decode_event(line)

    def drain_output(self) -> list[str]:
        """What the child printed since the last call; the end of it is kept for a fault report."""
        lines = [line.decode(errors="replace") for line in self._output.lines()]
        self._tail.extend(lines)
        return lines

    def forget_output(self) -> None:
        """From here on the tail is about the next job."""
        self._tail.clear()

    @property
    def output_tail(self) -> list[str]:
        return list(self._tail)

    @property
    def exited(self) -> bool:
        return self._process.poll() is not None

    @property
    def returncode(self) -> int | None:
        """None while it lives; negative is a signal."""
        return self._process.poll()

    def abort(self) -> None:
        """Sends SIGABRT: the child prints the stacks of all its threads and dies."""
        self._signal(signal.SIGABRT)

    def kill(self) -> None:
        """Sends SIGKILL. Whoever waits on the descriptors hears of the exit."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        try:
            self._process.send_signal(number)
        except PermissionError:
            return  # it stays alive; whoever waits for its exit draws the conclusion

    def close(self) -> None:
        """Releases the descriptors of a child that has exited."""
        for pipe in (self._process.stdin, self._process.stdout):
            cast("IO[bytes]", pipe).close()
        os.close(self._events.descriptor)
        os.close(self._exit)
