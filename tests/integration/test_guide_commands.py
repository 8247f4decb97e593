"""Every command of the API guide does what the guide says, sent by a shell to a running api."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import httpx
import pytest
from PIL import Image

from support.front import ServedFront

GUIDE = Path(__file__).resolve().parents[2] / "service" / "docs" / "api.md"
# Indented blocks that begin with a program; a line that ends in a backslash goes on.
COMMANDS = re.findall(r"(?m)^    (curl (?:.*\\\n)*.*)$", GUIDE.read_text())


def test_the_guide_has_commands() -> None:
    assert len(COMMANDS) >= 2


@pytest.mark.parametrize("number", range(len(COMMANDS)))
def test_a_command_of_the_guide_works(tmp_path: Path, number: int) -> None:
    with ServedFront(tmp_path) as front, front.hand.working():
        front.hand.report()
        Image.new("RGB", (64, 64), "red").save(tmp_path / "boat.png")
        job = httpx.post(f"{front.url}/generate", json={"prompt": "a boat"})
        command = (
            COMMANDS[number]
            .replace("http://127.0.0.1:8000", front.url)
            .replace("{id}", job.headers["Rockiln-Job-Id"])
        )
        ran = subprocess.run(
            ["bash", "-euc", command.replace("curl ", "curl --fail-with-body --silent ", 1)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        written = re.search(r"-o (\S+)", command)
        if "event-stream" in command:
            assert "event: done" in ran.stdout
        elif written is None:
            assert '"state":"' in ran.stdout.replace(" ", "")
        else:
            assert (tmp_path / written.group(1)).read_bytes().startswith(b"png ")
