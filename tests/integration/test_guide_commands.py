"""Every block of the guides does what it says, sent by a shell, Python or node to a running api."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from rockiln.store.records import Job, Lease
from support.front import ServedFront
from support.pages import ROOT, commands, of_kind
from support.painter import painted
from support.paper_model import PAPER

ADDRESS = "http://127.0.0.1:8000"
# Put there by tests/run.
NODE, PACKAGES = Path(sys.prefix, "bin", "node"), Path(sys.prefix, "node_modules")
# What is another here: address, container, folders, and a model of other sizes, measured shortly.
HERE = {
    "http://192.0.2.7:8000": ADDRESS,
    "docker exec rockiln-api ": "",
    "sudo cat /etc/rockiln/first-key": "cat first-key",
    "/srv/backup": "$PWD",
    "rockiln restore": "ROCKILN_DATA_DIR=$PWD/restored rockiln restore",
    "256x256,512x512": "64x64,128x128",
    "512x512,768x768": "64x64,128x128",
    "--steps 10,20,50 --runs 5": "--steps 10 --runs 1",
    "bench sd15 --export": f"bench {PAPER.id} --steps 10 --runs 1 --export",
    "bench sd15": f"bench {PAPER.id}",
    "vista": PAPER.id,
}
# It wants a hub of its own: tests/unit/cli/test_models.py runs these words.
PULLS = re.compile(r"rockiln models (pull|verify|rm) sd15")


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedFront]:
    with ServedFront(tmp_path_factory.mktemp("guides")) as served:

        def work(leased: tuple[Lease, Job]) -> None:
            if leased[1].purpose == "warm_up":
                served.store.jobs.record_warmed_up(leased[0])
                served.store.wake("api")
                return
            asked = leased[1].parameters
            png = painted(asked.width, asked.height)
            served.hand.finish(leased, content=png if asked.format == "png" else None)

        with served.hand.working(work):
            yield served


@pytest.fixture
def folder(front: ServedFront, tmp_path: Path) -> Path:
    """Where a reader would be: with a picture, and rockiln on the PATH."""
    front.hand.report()
    Image.new("RGB", (64, 64), "red").save(tmp_path / "boat.png")
    command = tmp_path / "bin" / "rockiln"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m rockiln "$@"\n')
    command.chmod(0o755)
    (tmp_path / "first-key").write_text(front.store.keys.create("first", ["generate"], None))
    return tmp_path


def run(front: ServedFront, folder: Path, *words: str | Path) -> str:
    ran = subprocess.run(
        words,
        cwd=folder,
        env={
            **front.environment(),
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "NODE_PATH": str(PACKAGES),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def here(front: ServedFront, text: str) -> str:
    """The text with the address and the model of the test's service."""
    for written, instead in HERE.items():
        text = text.replace(written, instead)
    text = re.sub(r"^rockiln bench$", "rockiln bench --steps 10 --runs 1", text)
    port = front.url.rpartition(":")[2]
    return text.replace(ADDRESS, front.url).replace("port=8000", f"port={port}")


@of_kind("shell")
def test_commands(front: ServedFront, folder: Path, block: str) -> None:
    for command in commands(block):
        if PULLS.fullmatch(command):
            words = ", ".join(f'"{word}"' for word in command.split()[1:])
            assert words in (ROOT / "tests/unit/cli/test_models.py").read_text()
            continue
        job = httpx.post(f"{front.url}/generate", json={"prompt": "a boat"})
        text = here(front, command).replace("{id}", job.headers["Rockiln-Job-Id"])
        if "revoke ID" in text:
            text = text.replace("ID", front.store.keys.all()[0].id)
        text = text.replace("curl ", "curl --fail-with-body --silent ", 1)
        if command.startswith("rockiln cache "):
            # Kernels are a GPU's; tests/unit/cli/test_cache.py moves those of an imagined one.
            text = f"! {text} 2>&1 | tee refused; grep 'no engine has' refused"
        said = run(front, folder, "bash", "-euc", text)
        written = re.search(r"-o (\S+)", text)
        if "event-stream" in text:
            assert "event: done" in said
        elif written is None:
            assert said.strip()
        elif written[1].endswith(".png"):
            assert (folder / written[1]).read_bytes().startswith(b"\x89PNG")
        else:
            assert json.loads((folder / written[1]).read_text())["images"]


@of_kind("python")
def test_python(front: ServedFront, folder: Path, block: str) -> None:
    written = {*re.findall(r'(?:open|save)\("(\w+\.png)"(?:, "wb")?\)', block)}
    (folder / "program.py").write_text(here(front, block))
    before = len(front.store.jobs.page(limit=99))
    run(front, folder, sys.executable, "program.py")
    assert len(front.store.jobs.page(limit=99)) == before + 1
    for name in written:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


@of_kind("node")
def test_javascript(front: ServedFront, folder: Path, block: str) -> None:
    (folder / "program.cjs").write_text(here(front, block))
    (folder / "boat.png").unlink()
    run(front, folder, NODE, "program.cjs")
    with Image.open(folder / "boat.png") as picture:
        assert picture.size == (256, 256)


@of_kind("variables")
def test_what_open_webui_sends_with_these_variables(front: ServedFront, block: str) -> None:
    """By its backend/open_webui/routers/images.py; what A1111's engine reads first: test_a1111."""
    given = dict(line.split("=", 1) for line in here(front, block).splitlines())
    width, _, height = given["IMAGE_SIZE"].partition("x")
    if given["IMAGE_GENERATION_ENGINE"] == "openai":
        answer = httpx.post(
            f"{given['IMAGES_OPENAI_API_BASE_URL']}/images/generations",
            json={
                "model": given["IMAGE_GENERATION_MODEL"], "prompt": "a boat", "n": 1,
                "size": given["IMAGE_SIZE"], "response_format": "b64_json",
            },
            headers={"Authorization": f"Bearer {given['IMAGES_OPENAI_API_KEY']}"},
        )  # fmt: skip
        pictures = [each["b64_json"] for each in answer.json()["data"]]
    else:
        user, _, password = given["AUTOMATIC1111_API_AUTH"].partition(":")
        answer = httpx.post(
            f"{given['AUTOMATIC1111_BASE_URL']}/sdapi/v1/txt2img",
            json={
                "prompt": "a boat", "batch_size": 1, "width": int(width), "height": int(height),
                "steps": int(given["IMAGE_STEPS"]),
            },
            auth=(user, password),
        )  # fmt: skip
        pictures = answer.json()["images"]
    assert [base64.b64decode(each) for each in pictures] == [painted(int(width), int(height))]


@of_kind("answer")
def test_answers_are_json(front: ServedFront, block: str) -> None:
    shown = json.loads(block)
    answer = httpx.post(f"{front.url}/generate", json={"prompt": "a boat", "width": 1000})
    assert answer.json().keys() >= shown.keys()
    assert answer.json()["errors"][0].keys() >= shown["errors"][0].keys()
