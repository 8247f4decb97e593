"""A line to PostgreSQL that can stop carrying anything while both ends believe that it is open."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

_CHUNK_BYTES = 1 << 16


class HalfOpenLine:
    """A listener on loopback that passes bytes on to a socket file."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lines: list[_Line] = []
        self._swallows_all = False
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for line in self._lines:
            line.close()

    def address(self, of: str) -> str:
        """The address of a database by this line instead of the socket file."""
        name = of.partition("?")[0].rpartition("/")[2]
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}?sslmode=disable"

    def swallow(self, *, new_ones: bool = False) -> int:
        """From here on nothing comes through on the lines that are open, ever.

        Args:
            new_ones: nor on those that are opened before ``resume``.
        """
        self._swallows_all = new_ones
        open_lines = [line for line in self._lines if not line.swallows]
        for line in open_lines:
            line.swallows = True
        return len(open_lines)

    def resume(self) -> None:
        """New lines carry again."""
        self._swallows_all = False

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(self._target))
                self._lines.append(_Line(client, server, swallows=self._swallows_all))


class _Line:
    def __init__(self, client: socket.socket, server: socket.socket, *, swallows: bool) -> None:
        self.swallows = swallows
        self._ends = client, server
        for ends in (client, server), (server, client):
            threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(_CHUNK_BYTES):
                if not self.swallows:
                    target.sendall(data)
            if not self.swallows:  # not even the end of a line comes through
                target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for end in self._ends:
            end.close()
