"""What the kernel logs while an engine works, where a process may read it."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

KMSG = Path("/dev/kmsg")
_RECORD_BYTES = 8192
_KEPT_LINES = 200


class KernelLog:
    """The kernel's log from now on.

    Attributes:
        unreadable: why there is nothing to see; empty where there is.
    """

    def __init__(self, path: Path = KMSG) -> None:
        self._path = path
        self._descriptor: int | None = None
        self.unreadable = ""
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._descriptor, 0, os.SEEK_END)
        except OSError as error:
            self._give_up(error)

    def lines(self) -> list[str]:
        """What was logged since the last call, the last of it where it is much."""
        found: deque[str] = deque(maxlen=_KEPT_LINES)
        while self._descriptor is not None:
            try:
                record = os.read(self._descriptor, _RECORD_BYTES)
            except BlockingIOError:
                break
            except BrokenPipeError:
                continue  # records were overwritten before they were read; the next read goes on
            except OSError as error:
                self._give_up(error)
                break
            if not record:
                break
            # "6,1234,5678,-;text", then lines of key=value.
            _, _, text = record.decode(errors="replace").partition(";")
            found.append(text.split("\n", 1)[0])
        return list(found)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _give_up(self, error: OSError) -> None:
        self.unreadable = f"{self._path}: {error.strerror}"
        self.close()
