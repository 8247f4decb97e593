"""The proxy as it is deployed: real nginx with the role's own template, on a free port."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Self

import httpx
import jinja2

from support.certificates import Pair
from support.service import eventually, free_port

TEMPLATE = (
    Path(__file__).resolve().parents[2] / "ansible/roles/inference_service/templates/nginx.conf.j2"
)
BODY_MAX_BYTES = 1 << 20


class Shield:
    """nginx in front of ``api_port``, with https at ``tls_port`` where there is a certificate."""

    def __init__(
        self,
        folder: Path,
        api_port: int,
        *,
        wait_seconds: float = 120.0,
        calls_max: int = 768,
        pair: Pair | None = None,
        hsts_seconds: int = 0,
    ) -> None:
        self.port, self.tls_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder / "nginx"
        self._folder.mkdir()
        self._file = self._folder / "nginx.conf"
        tls = {} if pair is None else self._tls(pair, hsts_seconds)
        self._file.write_text(self._configuration(api_port, wait_seconds, calls_max, tls))
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

    def check(self) -> subprocess.CompletedProcess[str]:
        """What nginx says of its configuration."""
        return subprocess.run(
            ["nginx", "-t", "-e", "stderr", "-c", str(self._file)],
            capture_output=True,
            text=True,
            check=False,
        )

    def _tls(self, pair: Pair, hsts_seconds: int) -> dict[str, Any]:
        """The role's variables, with the files where the role puts them."""
        shutil.copy(pair.certificate, self._folder / "tls.pem")
        shutil.copy(pair.key, self._folder / "tls.key")
        return {
            "inference_service_tls_address": "set",
            "inference_service_proxy_dir": ".",  # beside nginx.conf
            "inference_service_tls_hsts_seconds": hsts_seconds,
        }

    def _configuration(
        self, api_port: int, wait_seconds: float, calls_max: int, tls: dict[str, Any]
    ) -> str:
        """The template, with the addresses and folders of this test."""
        environment = jinja2.Environment(trim_blocks=True, autoescape=False)  # noqa: S701 (no HTML)
        environment.filters["to_json"] = json.dumps
        text = environment.from_string(TEMPLATE.read_text()).render(
            inference_service_body_max_bytes=BODY_MAX_BYTES,
            inference_service_wait_seconds=int(wait_seconds),
            **tls,
        )
        for deployed, here in (
            (r"http://[\w.-]*:8080", f"http://127.0.0.1:{api_port}"),
            (r"limit_conn calls \d+;", f"limit_conn calls {calls_max};"),
            (r"listen 8080;", f"listen 127.0.0.1:{self.port};"),
            (r"/tmp/", f"{self._folder}/"),  # noqa: S108 (a path in the template)
            *([(r"listen 8443", f"listen 127.0.0.1:{self.tls_port}")] if tls else []),
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
