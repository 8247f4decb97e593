"""The front with nothing behind it: an app on a fresh store, or a real ``rockiln api`` process."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from flask import Flask
from flask.testing import FlaskClient
from jinja2 import FileSystemBytecodeCache

from rockiln.api.app import create_app
from rockiln.api.services import EXTENSION, Services
from rockiln.registry import Catalogue
from rockiln.settings import Settings
from rockiln.store.store import Store
from support.hand_worker import HandWorker
from support.paper_model import PAPER, write_paper_model
from support.service import eventually, free_port

SOURCE = Path(__file__).resolve().parents[2] / "service" / "src"


@functools.cache
def _migrated() -> bytes:
    """An empty store of this version: a copy of it is made faster than a migration is run."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder))
        store = Store(settings)
        store.prepare()
        store.close()
        return (settings.store_dir / "rockiln.db").read_bytes()


class Front:
    """An app with its store, and a hand that can act as the worker."""

    def __init__(self, settings: Settings, catalogue: Catalogue) -> None:
        self.settings = settings
        settings.store_dir.mkdir(parents=True)
        (settings.store_dir / "rockiln.db").write_bytes(_migrated())
        self.store = Store(settings)
        self.store.artefacts.prepare()
        self.hand = HandWorker(self.store)
        self.app: Flask = create_app(settings, store=self.store, catalogue=catalogue)
        self.app.jinja_env.bytecode_cache = FileSystemBytecodeCache()  # (compiled once, for all)
        self.services: Services = self.app.extensions[EXTENSION]
        self.client: FlaskClient = self.app.test_client()

    def close(self) -> None:
        self.services.waiting_room.close()
        self.store.close()

    def send_form(self, path: str, /, form: dict[str, Any] | None = None, **more: Any) -> Any:
        """Sends a form of a page that the client has got."""
        page = self.client.get("/ui/sign-in" if self.settings.key_required else "/ui/gallery").text
        token = re.search(r'name="form_token" value="(\w+)"', page)
        assert token is not None, page
        return self.client.post(
            path,
            data={"form_token": token[1], **(form or {})},
            content_type="multipart/form-data",
            **more,
        )

    def submit(self, **body: Any) -> str:
        """Sends a job without waiting for it; returns its id."""
        answer = self.client.post(
            "/generate", json={"prompt": "a boat", **body}, headers={"Prefer": "respond-async"}
        )
        assert answer.status_code == 202, answer.text
        assert answer.json is not None
        job_id: str = answer.json["id"]
        return job_id


@contextmanager
def open_front(
    folder: Path, *, broken: dict[str, str] | None = None, **changes: Any
) -> Iterator[Front]:
    """A front on ``folder``; ``changes`` are settings."""
    given = {"public_dir": folder / "public", "data_dir": folder / "data", **changes}
    settings = Settings(**given)
    front = Front(settings, Catalogue({PAPER.id: PAPER}, broken or {}))
    try:
        yield front
    finally:
        front.close()


class ServedFront:
    """A running ``rockiln api``, and its store seen from outside."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "api.log"
        self._settings = Settings(
            public_dir=folder / "public",
            data_dir=folder / "data",
            api_bind=f"127.0.0.1:{self.port}",
            **{"published_address": f"127.0.0.1:{self.port}", **changes},
        )
        self.models_dir = self._settings.own_models_dir
        write_paper_model(self.models_dir / PAPER.id)
        self.store = Store(self._settings)
        self.store.prepare()
        self.hand = HandWorker(self.store)
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ServedFront:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rockiln", "api"],
                env={**self._settings.as_environment(), "PYTHONPATH": str(SOURCE)},
                cwd=self._settings.data_dir,
                stdout=log,
                stderr=log,
            )
        eventually(self._answers, "the api answers")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.store.close()

    def stop(self) -> None:
        """Ends the api as a container engine does."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)
            self.process = None

    def environment(self) -> dict[str, str]:
        """For a ``rockiln`` command that is to meet this service."""
        return {
            **self._settings.as_environment(),
            "PYTHONPATH": str(SOURCE),
            "ROCKILN_URL": self.url,
            "NO_COLOR": "1",
            "PATH": os.environ["PATH"],
        }

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            return httpx.get(f"{self.url}/livez", timeout=5).is_success
        except httpx.TransportError:
            return False
