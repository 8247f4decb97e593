"""``bootstrap.sh --runtime process``: a host without a container engine, as far as a picture."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from PIL import Image

from support.pages import ROOT
from support.service import eventually, free_port

INSTALL = "== Install torch and the service"
READY = "It runs in the foreground; Ctrl-C stops it."


@contextmanager
def foreground(home: Path, listen: str) -> Iterator[str]:
    """The command in a terminal's place, until Ctrl-C: what it has said once the service runs."""
    log = home / "terminal"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [ROOT / "bootstrap.sh", "--runtime", "process", "--listen", listen],
            env={**os.environ, "XDG_DATA_HOME": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )

    def said() -> str | None:
        words = log.read_text()
        assert process.poll() is None, words
        return words if READY in words else None

    try:
        yield eventually(said, "the service runs", seconds=540)
    finally:
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 0, log.read_text()


@pytest.mark.timeout(600)
def test_a_picture_is_made_and_the_second_start_installs_nothing(tmp_path: Path) -> None:
    listen = f"127.0.0.1:{free_port()}"
    with foreground(tmp_path, listen) as words:
        assert INSTALL in words
        with Image.open(tmp_path / "rockiln/first-picture.png") as picture:
            assert picture.size == (256, 256)
    with foreground(tmp_path, listen) as words:
        assert INSTALL not in words
        assert httpx.get(f"http://{listen}/readyz").status_code == 200
