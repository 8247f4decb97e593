"""Hints that shorten waiting: a datagram in the store folder. Nothing depends on one arriving."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path
from types import TracebackType
from typing import Literal

Audience = Literal["api", "worker"]
# What a waiting process polls at when no hint comes.
POLL_SECONDS = 0.25


class WakeReceiver:
    """A socket that becomes readable when somebody wakes this process."""

    def __init__(self, folder: Path, audience: Audience) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{audience}-{uuid.uuid4().hex[:12]}.sock"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        with _ShortPath(folder) as short:
            self.socket.bind(f"{short}/{self._path.name}")

    def drain(self) -> None:
        """Forgets the hints received so far."""
        try:
            while True:
                self.socket.recv(16)
        except BlockingIOError:
            return

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        self.socket.close()


def wake(folder: Path, audience: Audience) -> None:
    """Wakes every process of that audience. Sockets of dead processes are removed."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender,
        _ShortPath(folder) as short,
    ):
        for name in os.listdir(folder):
            if not name.startswith(f"{audience}-"):
                continue
            try:
                sender.sendto(b"!", f"{short}/{name}")
            except BlockingIOError:
                continue  # its queue is full of hints: it is awake
            except (ConnectionRefusedError, FileNotFoundError):
                (folder / name).unlink(missing_ok=True)


class _ShortPath:
    """A folder by its descriptor: a socket address holds 107 bytes, a path may be longer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> str:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self._folder, os.O_PATH | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._descriptor}"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)
