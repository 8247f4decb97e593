"""SIGTERM and SIGINT as something that a loop can wait on."""

from __future__ import annotations

import os
import selectors
import signal
from collections.abc import Callable


class StopSignals:
    """Within the block the signals only wake ``selector``, which calls ``stop``."""

    def __init__(self, selector: selectors.BaseSelector, stop: Callable[[], None]) -> None:
        self._selector = selector
        self._on_stop = stop

    def __enter__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._read, selectors.EVENT_READ, self._stop)
        signal.set_wakeup_fd(self._write)
        self._before = {
            number: signal.signal(number, lambda *_: None)
            for number in (signal.SIGTERM, signal.SIGINT)
        }

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        self._selector.unregister(self._read)
        os.close(self._read)
        os.close(self._write)

    def _stop(self) -> None:
        os.read(self._read, 64)
        self._on_stop()
