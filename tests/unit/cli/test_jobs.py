"""``rockiln jobs`` against a real api, and how a job is watched."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from rockiln.cli import exit_codes
from rockiln.domain.fault import Fault, FaultCode
from support.command import rockiln
from support.front import ServedFront
from support.service import eventually

pytestmark = pytest.mark.slow


def submitted(front: ServedFront, prompt: str, **body: Any) -> str:
    answer = httpx.post(
        f"{front.url}/generate",
        json={"prompt": prompt, **body},
        headers={"Prefer": "respond-async"},
    )
    job_id: str = answer.json()["id"]
    return job_id


def test_the_list_is_one_line_a_job_and_json_on_request(served: ServedFront) -> None:
    job_id = submitted(served, "a boat \x1b[31m in a storm" + " and rain" * 50)
    ended = rockiln(served, "jobs", "list", "-n", "1")
    head, line = ended.stdout.splitlines()
    assert head.split() == ["job", "state", "age", "model", "prompt"]
    assert line.startswith(job_id[:12])
    assert "in a storm" in line
    assert "\x1b" not in ended.stdout
    assert line.endswith(" and rain")
    narrow = on_terminal(served, "jobs", "list", "-n", "1").splitlines()[1]
    assert re.match(rf"{job_id[:12]}  accepted  \d+ s +paper  a boat", narrow)
    assert (len(narrow), narrow[-1]) == (80, "…")
    (job,) = json.loads(rockiln(served, "jobs", "list", "-n", "1", "--json").stdout)
    assert job["id"] == job_id
    wrong = rockiln(served, "jobs", "list", "--state", "lost")
    assert (wrong.returncode, "next: " in wrong.stderr) == (exit_codes.REFUSED, True)
    served.store.jobs.cancel(job_id)


def on_terminal(front: ServedFront, *words: str) -> str:
    leader, follower = os.openpty()
    subprocess.run(
        [sys.executable, "-m", "rockiln", *words],
        env={**front.environment(), "TERM": "xterm", "COLUMNS": "80"},
        stdout=follower,
        check=True,
        timeout=60,
    )
    os.close(follower)
    shown = os.read(leader, 65536).decode()
    os.close(leader)
    return shown


def test_a_waiting_job_is_shown_cancelled_and_sent_again(served: ServedFront) -> None:
    job_id = submitted(served, "a lighthouse", seed=7, negative_prompt="fog")
    shown = rockiln(served, "jobs", "show", job_id[:10])
    assert f"job       {job_id}" in shown.stdout
    assert "place 1" in shown.stdout
    cancelled = rockiln(served, "jobs", "cancel", job_id[:10])
    assert cancelled.stdout == f"{job_id} cancelled\n"
    again = rockiln(served, "jobs", "retry", job_id)
    assert again.returncode == 0, again.stderr
    made = served.store.jobs.get(again.stdout.strip())
    assert made.parameters == served.store.jobs.get(job_id).parameters
    assert made.parameters.seed == 7
    served.store.jobs.cancel(made.id)


def test_a_waiting_job_is_moved_and_one_is_deleted_for_good(served: ServedFront) -> None:
    ahead, behind = (submitted(served, "a boat") for _ in range(2))
    moved = rockiln(served, "jobs", "move", behind, "first")
    assert moved.stdout == f"{behind} accepted, place 1\n", moved.stderr
    assert rockiln(served, "jobs", "move", ahead, "nowhere").returncode == exit_codes.USAGE
    for job_id in (ahead, behind):
        assert rockiln(served, "jobs", "rm", job_id).stdout == f"{job_id} deleted\n"
        assert httpx.get(f"{served.url}/jobs/{job_id}").status_code == 404


def test_a_failed_job_is_shown_with_its_reason(served: ServedFront) -> None:
    job_id = submitted(served, "a failure")
    served.hand.fail(served.hand.lease(), Fault(FaultCode.GPU_OOM, "4 GiB are too few"))
    shown = rockiln(served, "jobs", "show", job_id).stdout
    assert "failed    gpu_oom: 4 GiB are too few" in shown
    assert f"{served.url}/problems/gpu-oom" in shown
    late = rockiln(served, "jobs", "cancel", job_id)
    assert (late.returncode, "failed already" in late.stderr) == (exit_codes.REFUSED, True)
    watched = rockiln(served, "jobs", "watch", job_id, "--json")
    assert watched.returncode == exit_codes.JOB_FAILED
    assert json.loads(watched.stdout)["failure"]["reason"] == "gpu_oom"


@pytest.mark.parametrize("job_id", ["0" * 32, "x", "../models", "é" * 32])
def test_a_job_that_is_not_there_is_refused(served: ServedFront, job_id: str) -> None:
    ended = rockiln(served, "jobs", "show", job_id)
    assert ended.returncode == exit_codes.REFUSED, ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_job_is_sent_again_with_the_picture_that_it_started_from(served: ServedFront) -> None:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(file, "PNG")
    picture = base64.b64encode(file.getvalue()).decode("ascii")
    job_id = submitted(served, "a gate", image=picture, strength=0.5)
    again = rockiln(served, "jobs", "retry", job_id)
    assert again.returncode == 0, again.stderr
    made = served.store.jobs.get(again.stdout.strip())
    assert made.parameters == served.store.jobs.get(job_id).parameters
    assert made.parameters.image is not None
    served.store.artefacts.input_path(made.parameters.image).unlink()
    gone = rockiln(served, "jobs", "retry", job_id)
    assert (gone.returncode, "was removed" in gone.stderr) == (exit_codes.REFUSED, True)
    for each in (job_id, made.id):
        served.store.jobs.cancel(each)


def watching(front: ServedFront, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        # Started in the background, this test run may ignore the signal, and so would its children.
        ["env", "--default-signal=INT", sys.executable, "-m", "rockiln", "jobs", "watch", *words],
        env=front.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def streams(front: ServedFront, job_id: str) -> int:
    """How often a stream of the job was asked for."""
    lines = front.log.read_text().splitlines()
    return sum(job_id in line and "/jobs/<job_id>/events" in line for line in lines)


def test_an_interrupt_leaves_a_watched_job_and_says_how_to_go_on(
    served: ServedFront, tmp_path: Path
) -> None:
    job_id = submitted(served, "a long wait")
    running = watching(served, job_id)
    eventually(lambda: streams(served, job_id) == 1, "it is watched")
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert running.returncode == exit_codes.INTERRUPTED
    assert f"the job goes on\nnext: rockiln jobs watch {job_id[:12]}" in told.decode()
    assert served.store.jobs.get(job_id).state == "accepted"

    running = watching(served, job_id, "--cancel-on-interrupt")
    eventually(lambda: streams(served, job_id) == 2, "it is watched")
    running.send_signal(signal.SIGINT)
    assert running.communicate(timeout=60)[1].endswith(b"the job is cancelled\n")
    assert served.store.jobs.get(job_id).state == "cancelled"


def test_a_watched_job_moves_by_its_events(served: ServedFront, tmp_path: Path) -> None:
    job_id = submitted(served, "a boat", num_inference_steps=8)
    leader, follower = os.openpty()
    running = subprocess.Popen(
        [sys.executable, "-m", "rockiln", "jobs", "watch", job_id, "-o", "boat.png"],
        env={**served.environment(), "TERM": "xterm", "COLUMNS": "100"},
        cwd=tmp_path,
        stderr=follower,
        stdout=subprocess.PIPE,
    )
    os.close(follower)
    eventually(lambda: streams(served, job_id) == 1, "it is watched")
    shown = b""
    while b"accepted, place 1" not in shown:
        shown += os.read(leader, 65536)
    leased = served.hand.lease()
    for step in range(1, 9):
        served.store.jobs.record_step(leased[0], 0, step)
        served.store.wake("api")
        while f"step {step}/8".encode() not in shown:
            shown += os.read(leader, 65536)
    served.hand.finish(leased)
    out, _ = running.communicate(timeout=60)
    os.close(leader)
    assert b"s left" in shown
    assert out == b"boat.png\n"
    assert (tmp_path / "boat.png").read_bytes().startswith(b"png ")


def test_a_job_is_looked_at_without_a_stream_and_a_broken_stream_is_taken_up_again(
    tmp_path: Path,
) -> None:
    with ServedFront(tmp_path, stream_slots=1) as front:
        first, second = (submitted(front, "a boat") for _ in range(2))
        streamed = watching(front, first)
        eventually(lambda: streams(front, first) == 1, "the first is watched")
        looked_at = watching(front, second)
        eventually(lambda: streams(front, second) == 1, "the second was refused a stream")
        front.store.jobs.move(second, "first")
        front.hand.finish(front.hand.lease())
        out, told = looked_at.communicate(timeout=60)
        assert (looked_at.returncode, told) == (0, b"")
        assert out.decode() == f"{front.url}/jobs/{second}/artefacts/0\n"
        front.stop()
        with front:  # at the same address
            front.hand.finish(front.hand.lease())
            streamed.communicate(timeout=60)
    assert streamed.returncode == 0


def test_the_shell_completes_ids(served: ServedFront) -> None:
    job_id = submitted(served, "a boat")
    for words, expected in (
        (f"rockiln jobs show {job_id[:6]}", job_id),
        ("rockiln models show pa", "paper"),
    ):
        ended = subprocess.run(
            [sys.executable, "-m", "rockiln"],
            env={
                **served.environment(),
                "_ROCKILN_COMPLETE": "complete_bash",
                "COMP_WORDS": words,
                "COMP_CWORD": "3",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert expected in ended.stdout.split(), ended.stderr
    served.store.jobs.cancel(job_id)
