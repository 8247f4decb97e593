"""``rockiln generate`` against a real api."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rockiln.cli import exit_codes
from rockiln.cli.client import Client
from rockiln.cli.generate import output_path, read_control
from rockiln.domain.fault import Fault, FaultCode
from rockiln.domain.request import GenerationParameters
from rockiln.store.records import Job, Lease
from support.command import rockiln
from support.front import ServedFront
from support.paper_controlnet import write_paper_controlnet
from support.service import eventually

pytestmark = pytest.mark.slow


def test_a_map_goes_with_its_controlnet(served: ServedFront, tmp_path: Path) -> None:
    write_paper_controlnet(served.models_dir / "controlnets" / "edges")
    Image.new("RGB", (64, 64)).save(tmp_path / "map.png")
    with served.hand.working():
        ended = rockiln(
            served, "generate", "a boat", "--json", "--control", "edges=map.png,scale=0.5,end=0.75",
            cwd=tmp_path,
        )  # fmt: skip
    (use,) = json.loads(ended.stdout)["parameters"]["controlnets"]
    assert (use["name"], use["scale"], use["start"], use["end"]) == ("edges", 0.5, 0.0, 0.75)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("edges", "is not NAME=FILE"),
        ("edges=no.png", "cannot be read: No such file"),
        ("edges=x,weight=1", "none of scale, start, end"),
        ("edges=x,scale=much", "'much' is no number"),
    ],
)
def test_what_names_no_map_is_a_wrong_command_line(said: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_control(said)


def test_a_picture_is_saved_and_its_path_printed(served: ServedFront, tmp_path: Path) -> None:
    with served.hand.working():
        ended = rockiln(served, "generate", "a boat", "-o", "deep/boat.jpg", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (0, "deep/boat.jpg\n"), ended.stderr
    assert (tmp_path / "deep/boat.jpg").read_bytes().startswith(b"jpeg ")


def test_options_reach_the_service_and_json_tells_all(served: ServedFront, tmp_path: Path) -> None:
    options = {
        "--seed": "5",
        "--width": "72",
        "--height": "80",
        "--steps": "3",
        "--guidance": "2.5",
        "--scheduler": "ddim",
        "--num-images": "2",
        "--negative-prompt": "rain",
        "--model": "paper",
        "--format": "webp",
        "--output": "{seed}-{index}",
    }
    words = [word for option in options.items() for word in option]
    with served.hand.working():
        ended = rockiln(served, "generate", "a boat", "--json", *words, cwd=tmp_path)
    job = json.loads(ended.stdout)
    assert job["files"] == ["5-0", "6-1"]
    assert GenerationParameters.from_dict(job["parameters"]).as_dict() == {
        "prompt": "a boat", "negative_prompt": "rain", "width": 72, "height": 80,
        "num_inference_steps": 3, "guidance_scale": 2.5, "seed": 5, "scheduler": "ddim",
        "num_images": 2, "model": "paper", "format": "webp",
    }  # fmt: skip


def test_a_picture_can_go_to_standard_output(served: ServedFront) -> None:
    with served.hand.working():
        ended = rockiln(served, "generate", "a boat", "-o", "-")
    assert (ended.returncode, ended.stdout[:4]) == (0, "png ")


def test_warnings_are_told_apart_from_the_path(served: ServedFront, tmp_path: Path) -> None:
    def finish(leased: tuple[Lease, Job]) -> None:
        served.hand.finish(leased, warnings=("the prompt is long",))

    with served.hand.working(finish):
        ended = rockiln(served, "generate", "a boat", "-o", "boat.png", cwd=tmp_path)
    assert ended.stdout == "boat.png\n"
    assert "warning: the prompt is long" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a boat", "--width", "7"], "use 64 to 512, a multiple of 8"),
        (["a boat", "--model", "other"], "use one of paper"),
        ([""], "prompt"),
    ],
)
def test_a_refusal_is_told_with_the_next_step(
    served: ServedFront, arguments: list[str], words: str
) -> None:
    ended = rockiln(served, "generate", *arguments)
    assert (ended.returncode, ended.stdout) == (exit_codes.REFUSED, "")
    assert words in ended.stderr
    assert "next:" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_failed_job_is_told_with_its_reason(served: ServedFront) -> None:
    def fail(leased: tuple[Lease, Job]) -> None:
        served.hand.fail(leased, Fault(FaultCode.GPU_OOM, "4 GiB are too few"))

    with served.hand.working(fail):
        ended = rockiln(served, "generate", "a boat")
    assert ended.returncode == exit_codes.JOB_FAILED
    assert "4 GiB are too few" in ended.stderr


def test_a_job_cancelled_by_somebody_has_its_own_code(served: ServedFront) -> None:
    def cancel(leased: tuple[Lease, Job]) -> None:
        served.store.jobs.record_cancelled(leased[0])

    with served.hand.working(cancel):
        assert rockiln(served, "generate", "a boat").returncode == exit_codes.JOB_CANCELLED


def test_an_interrupt_cancels_the_job(served: ServedFront) -> None:
    running = subprocess.Popen(
        # Started in the background, this test run may ignore the signal, and so would its children.
        [
            *("env", "--default-signal=INT"),
            *(sys.executable, "-m", "rockiln", "generate", "a boat to be cancelled"),
        ],
        env=served.environment(),
        stderr=subprocess.PIPE,
    )
    job = eventually(
        lambda: next(
            (j for j in served.store.jobs.page(limit=1) if "cancelled" in j.parameters.prompt), None
        ),
        "the job is accepted",
    )
    eventually(lambda: polls(served, job.id), "the command follows it")
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert running.returncode == exit_codes.INTERRUPTED, told
    assert served.store.jobs.get(job.id).state == "cancelled"


def polls(front: ServedFront, job_id: str) -> bool:
    return (
        '"method": "GET", "route": "/jobs/<job_id>", "status": 200'
        in (text := front.log.read_text())
        and text.count(job_id) > 1
    )


@pytest.mark.parametrize(
    ("url", "code"),
    [("http://127.0.0.1:1", exit_codes.UNREACHABLE), ("ftp://x", 2), ("http://x:port", 2)],
)
def test_no_service_is_told_as_such(served: ServedFront, url: str, code: int) -> None:
    ended = rockiln(served, "generate", "a boat", "--url", url)
    assert ended.returncode == code
    assert ended.stderr.startswith("rockiln: ")
    assert "Traceback" not in ended.stderr


def test_a_file_that_cannot_be_written_says_where_the_picture_still_is(
    served: ServedFront, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with served.hand.working():
        ended = rockiln(served, "generate", "a boat", "-o", "file/boat.png", cwd=tmp_path)
    assert ended.returncode == exit_codes.FAILED
    assert f"{served.url}/jobs/" in ended.stderr


def test_a_terminal_is_shown_a_bar_and_a_pipe_is_not(served: ServedFront, tmp_path: Path) -> None:
    leader, follower = os.openpty()
    with served.hand.working():
        ended = subprocess.run(
            [sys.executable, "-m", "rockiln", "generate", "a boat"],
            env={**served.environment(), "TERM": "xterm", "COLUMNS": "80"},
            cwd=tmp_path,
            stderr=follower,
            check=True,
            timeout=60,
            stdout=subprocess.PIPE,
        )
    os.close(follower)
    shown = os.read(leader, 65536)
    os.close(leader)
    assert shown
    assert b"\x1b[3" not in shown  # NO_COLOR: it may move the cursor, it may not colour
    assert ended.stdout.endswith(b".png\n")


@pytest.mark.parametrize(
    ("template", "count", "expected"),
    [
        ("boat.png", 1, "boat.png"),
        ("boat.png", 2, "boat-1.png"),
        ("{seed}.png", 2, "9.png"),
        ("a/{seed}-{index}.png", 1, "a/9-1.png"),
        ("{other}.png", 1, "{other}.png"),
        ("{0.__class__}.png", 1, "{0.__class__}.png"),
    ],
)
def test_pictures_never_share_a_name(template: str, count: int, expected: str) -> None:
    picture: dict[str, Any] = {"index": 1, "seed": 9}
    assert output_path(template, picture, count=count) == Path(expected)


def test_a_call_after_an_interrupted_one_goes_through(
    served: ServedFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen in a test run: the cancel after Ctrl-C met "Request-sent" and was never sent."""
    answer = http.client.HTTPConnection.getresponse

    def interrupted(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
        monkeypatch.setattr(http.client.HTTPConnection, "getresponse", answer)
        raise KeyboardInterrupt

    with Client(served.url) as client:
        monkeypatch.setattr(http.client.HTTPConnection, "getresponse", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.call("GET", "/livez")
        assert client.call("GET", "/livez").ok
