"""A mark that some process has the store open, for restoring, which must have it alone."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

NAME = "in-use.lock"


class InUse:
    """A shared lock below the store folder. It goes with its process, however that ends."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._file: IO[str] | None = None
        if folder.is_dir():
            self.hold()

    def hold(self) -> None:
        """Marks the store as in use; waits while a restore writes it."""
        if self._file is None:
            self._file = self._path.open("a")
            fcntl.flock(self._file, fcntl.LOCK_SH)

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def take_alone(folder: Path) -> IO[str] | None:
    """The store without anybody else, until the file is closed; None while it is in use."""
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / NAME).open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
