"""``rockiln models`` against a running api and fetcher, and a hub on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rockiln.registry.known_models import known_models
from support.command import rockiln
from support.front import ServedFront
from support.hub import FakeHub
from support.paper_model import write_paper_model

pytestmark = pytest.mark.slow

SD15 = known_models()["sd15"]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeHub]:
    folder = tmp_path_factory.mktemp("repository") / "paper"
    write_paper_model(folder)
    held = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "rockiln.json"
    }
    with FakeHub({SD15.repository or "": held}, commit=SD15.commit or "") as running:
        yield running


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory, hub: FakeHub) -> Iterator[ServedFront]:
    folder: Path = tmp_path_factory.mktemp("front")
    with ServedFront(folder, hub_endpoint=hub.url, min_free_disk_bytes=0) as served:
        yield served


@contextmanager
def fetcher(front: ServedFront) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-m", "rockiln", "fetcher"], env=front.environment()
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def test_a_model_is_pulled_verified_and_removed(front: ServedFront) -> None:
    with fetcher(front):
        pulled = rockiln(front, "models", "pull", "sd15")
        assert pulled.returncode == 0, pulled.stderr
        assert SD15.commit is not None
        assert SD15.commit in pulled.stdout
        listed = {
            each["id"]: each
            for each in json.loads(rockiln(front, "models", "list", "--json").stdout)
        }
        assert listed["sd15"]["state"] == "ready"
        assert rockiln(front, "models", "pull", "sd15").returncode == 4
        assert rockiln(front, "models", "verify", "sd15").returncode == 0
        removed = rockiln(front, "models", "rm", "sd15", "--json")
        assert removed.returncode == 0, removed.stderr
        assert json.loads(removed.stdout)["task"]["state"] == "done"
        assert rockiln(front, "models", "rm", "sd15").returncode == 0  # and once more: no harm


def test_a_download_that_fails_says_why(front: ServedFront, hub: FakeHub) -> None:
    hub.corrupt.add("unet/diffusion_pytorch_model.safetensors")
    try:
        with fetcher(front):
            ended = rockiln(front, "models", "pull", "sd15", "--json")
    finally:
        hub.corrupt.clear()
    assert ended.returncode == 5
    assert json.loads(ended.stdout)["state"] == "broken"
    assert "SHA-256" in ended.stderr


def test_lists_and_pages_for_people(front: ServedFront) -> None:
    lines = rockiln(front, "models", "list").stdout.splitlines()
    assert lines[0].split()[:2] == ["paper", "ready"]
    assert any(line.split()[:4] == ["sdxl", "downloadable", "6.94", "GB"] for line in lines)
    shown = rockiln(front, "models", "show", "flux1-dev").stdout
    assert "state: gated" in shown
    assert "licence_page: https://" in shown


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("show", "none"), 4, "no model 'none'"),
        (("pull", "../etc"), 4, "no route"),
        (("pull", "flux2-dev"), 4, "Mistral"),
        (("pull", "flux1-dev"), 4, "rockiln models pull flux1-dev --accept-licence"),
        (("rm", "paper", "--url", "http://127.0.0.1:9"), 3, "rockiln serve"),
        (("rm", "paper", "--url", "ftp://x"), 2, "not http"),
        (("pull",), 2, "Missing argument"),
    ],
)
def test_refusals(front: ServedFront, arguments: tuple[str, ...], code: int, words: str) -> None:
    ended = rockiln(front, "models", *arguments)
    assert ended.returncode == code, ended.stderr
    assert words in ended.stderr
