"""A registry of container images on loopback: read-only, with images of one small file.

It speaks what ``docker pull`` asks for (OCI distribution, image manifest schema 2). A tag can be
moved, an image forgotten, and a digest answered with another image, as a tampered mirror would.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Registry:
    """Serves while it is entered; ``address`` is what image names begin with."""

    def __init__(self) -> None:
        self._content: dict[str, bytes] = {}  # by digest, or by tag
        registry = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = registry._find(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                if body is not None and "/manifests/" in self.path:
                    self.send_header("Content-Type", MANIFEST)
                    self.send_header("Docker-Content-Digest", digest_of(body))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body or b"")

            do_HEAD = do_GET  # noqa: N815 (http.server's names)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.address = f"127.0.0.1:{self._server.server_port}"

    def _find(self, path: str) -> bytes | None:
        return b"{}" if path == "/v2/" else self._content.get(path.rpartition("/")[2])

    def put(self, tag: str, text: str) -> str:
        """Let a tag name an image that holds this text; the image's digest."""
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:
            member = tarfile.TarInfo("text")
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
        packed = gzip.compress(layer.getvalue(), mtime=0)
        rootfs = {"type": "layers", "diff_ids": [digest_of(layer.getvalue())]}
        config = json.dumps(
            {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}
        ).encode()
        described = [
            {"mediaType": kind, "size": len(content), "digest": digest_of(content)}
            for kind, content in ((CONFIG, config), (LAYER, packed))
        ]
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": described[0],
                "layers": described[1:],
            }
        ).encode()
        for content in (config, packed, manifest):
            self._content[digest_of(content)] = content
        self._content[tag] = manifest
        return digest_of(manifest)

    def forget(self, digest: str) -> None:
        del self._content[digest]

    def answer_with(self, digest: str, other: str) -> None:
        """Serve another image under this digest."""
        self._content[digest] = self._content[other]

    def __enter__(self) -> Registry:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
