"""What ties an engine child to its supervisor. No torch."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import BinaryIO, NoReturn

_PR_SET_PDEATHSIG = 1


def leave(status: int) -> NoReturn:
    """Ends the process without exit-time destructors: HIP's can corrupt the heap."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def bind_to_parent() -> None:
    """Dies with the parent, dumps the stack on a fatal signal, leaves Ctrl-C to the parent.

    The parent is the thread that spawned this process: that thread has to live as long.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    faulthandler.enable(file=sys.stderr, all_threads=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def read_lines(pipe: BinaryIO, at_end: Callable[[], None]) -> queue.SimpleQueue[bytes]:
    """Starts a thread that puts each line of ``pipe`` into the queue and calls ``at_end``."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        for line in pipe:
            lines.put(line)
        at_end()

    threading.Thread(target=read, name="commands", daemon=True).start()
    return lines


def write_line(descriptor: int, line: bytes) -> None:
    """Writes all of ``line``; leaves if nobody reads any more."""
    rest = memoryview(line)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except BrokenPipeError:
        leave(0)
