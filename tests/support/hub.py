"""A small hub on loopback that speaks Hugging Face's protocol, and misbehaves where it is told to.

Of the protocol: ``/api/models/REPOSITORY/revision/REVISION?blobs=true``, ``/REPOSITORY/resolve/
COMMIT/PATH`` with a redirect to another host for large files, ``Range``, and the error headers.
"""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_LARGE_BYTES = 4096


@dataclass
class FakeHub:
    """One repository's worth of hub.

    Attributes:
        repositories: name → path → content.
        gated: repositories that want a token.
        truncate: path → how many bytes each connection sends at most.
        corrupt: paths whose content is not what is announced.
        hold: path → bytes after which the connection waits until ``released`` is set.
        refuse_parts: answers a Range with the whole.
        busy: so many next answers are 503.
        address: where it listens.
        elsewhere: this machine by another name than ``url``'s, where redirects lead.
    """

    repositories: dict[str, dict[str, bytes]]
    commit: str = COMMIT
    gated: set[str] = field(default_factory=set)
    token: str = "a-token"
    truncate: dict[str, int] = field(default_factory=dict)
    corrupt: set[str] = field(default_factory=set)
    hold: dict[str, int] = field(default_factory=dict)
    released: threading.Event = field(default_factory=threading.Event)
    holding: threading.Event = field(default_factory=threading.Event)
    refuse_parts: bool = False
    busy: int = 0
    address: tuple[str, int] = ("127.0.0.1", 0)
    elsewhere: str = "localhost"
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._server = _Server(self)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def ranges(self, path: str) -> list[str]:
        """The Range of each call that was sent bytes of a file; empty for the whole."""
        return [
            headers.get("range", "")
            for called, headers in self.requests
            if called.startswith("/cdn/") and called.endswith(path)
        ]

    def listing(self, repository: str) -> dict[str, Any]:
        return {
            "sha": self.commit,
            "siblings": [_entry(*item) for item in self.repositories[repository].items()],
        }


def _entry(path: str, content: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
    entry: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": blob.hexdigest()}
    if len(content) >= _LARGE_BYTES or path.endswith(".safetensors"):
        entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    return entry


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: FakeHub) -> None:
        super().__init__(hub.address, _Handler)
        self.hub = hub


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Silent."""

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.hub.requests.append((path, {n.lower(): v for n, v in self.headers.items()}))
        if self.server.hub.busy:
            self.server.hub.busy -= 1
            return self._error(503)
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            return self._listing("/".join(parts[2:4]), parts[5])
        if parts[0] == "cdn":  # another host in the real world: it must see no token
            if "Authorization" in self.headers:
                return self._error(400, "TokenLeaked")
            return self._file("/".join(parts[1:3]), "/".join(parts[3:]))
        return self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))

    def _allowed(self, repository: str) -> bool:
        if repository not in self.server.hub.repositories:
            self._error(404, "RepoNotFound")
            return False
        said = self.headers.get("Authorization")
        if repository in self.server.hub.gated and said != f"Bearer {self.server.hub.token}":
            self._error(403 if said else 401, "GatedRepo")
            return False
        return True

    def _listing(self, repository: str, revision: str) -> None:
        if repository not in self.server.hub.repositories:
            return self._error(401, "RepoNotFound")
        if revision not in {"main", self.server.hub.commit}:
            return self._error(404, "RevisionNotFound")
        return self._send(json.dumps(self.server.hub.listing(repository)).encode())

    def _resolve(self, repository: str, commit: str, path: str) -> None:
        if not self._allowed(repository):
            return None
        if commit != self.server.hub.commit or path not in self.server.hub.repositories[repository]:
            return self._error(404, "EntryNotFound")
        self.send_response(302)
        hub = self.server.hub
        self.send_header("Location", f"http://{hub.elsewhere}:{hub.port}/cdn/{repository}/{path}")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def _file(self, repository: str, path: str) -> None:
        content = self.server.hub.repositories[repository][path]
        if path in self.server.hub.corrupt:
            content = bytes(len(content))
        start, asked = 0, self.headers.get("Range", "")
        if asked and not self.server.hub.refuse_parts:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                return self._error(416)
        body = content[start:]
        self.send_response(206 if start else 200)
        if start:
            end = f"{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", f"bytes {start}-{end}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if path in self.server.hub.hold and not self.server.hub.released.is_set():
            self.wfile.write(body[: self.server.hub.hold[path]])
            self.wfile.flush()
            self.server.hub.holding.set()
            self.server.hub.released.wait(60)
            body = body[self.server.hub.hold[path] :]
        if path in self.server.hub.truncate and len(body) > self.server.hub.truncate[path]:
            self.wfile.write(body[: self.server.hub.truncate[path]])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return None
        self.wfile.write(body)
        return None

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _error(self, status: int, code: str = "") -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()
