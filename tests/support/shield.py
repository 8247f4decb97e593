"""The proxy as it is deployed: real nginx with the role's own template, on a free port."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Self

import httpx
import jinja2

from support.service import eventually, free_port

TEMPLATE = (
    Path(__file__).resolve().parents[2] / "ansible/roles/inference_service/templates/nginx.conf.j2"
)
BODY_MAX_BYTES = 1 << 20


class Shield:
    """nginx in front of ``api_port``."""

    def __init__(
        self, folder: Path, api_port: int, *, wait_seconds: float = 120.0, calls_max: int = 768
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder / "nginx"
        self._folder.mkdir()
        self._file = self._folder / "nginx.conf"
        self._file.write_text(self._configuration(api_port, wait_seconds, calls_max))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["nginx", "-e", "stderr", "-c", str(self._file)], stdout=log, stderr=log
            )
        eventually(self._answers, "nginx answers", seconds=30)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def _configuration(self, api_port: int, wait_seconds: float, calls_max: int) -> str:
        """The template, with the addresses and folders of this test."""
        environment = jinja2.Environment(trim_blocks=True, autoescape=False)  # noqa: S701 (no HTML)
        environment.filters["to_json"] = json.dumps
        text = environment.from_string(TEMPLATE.read_text()).render(
            inference_service_body_max_bytes=BODY_MAX_BYTES,
            inference_service_wait_seconds=int(wait_seconds),
        )
        for deployed, here in (
            (r"http://[\w.-]*:8080", f"http://127.0.0.1:{api_port}"),
            (r"limit_conn calls \d+;", f"limit_conn calls {calls_max};"),
            (r"listen 8080;", f"listen 127.0.0.1:{self.port};"),
            (r"/tmp/", f"{self._folder}/"),  # noqa: S108 (a path in the template)
            # As root it would give the folders above to a user who cannot reach them.
            (r"daemon off;", "daemon off;\nuser root;"),
        ):
            text, count = re.subn(deployed, here, text)
            assert count, f"{TEMPLATE} no longer says {deployed!r}"
        return text

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()
        try:
            return httpx.get(f"{self.url}/livez", timeout=5).is_success
        except httpx.TransportError:
            return False
