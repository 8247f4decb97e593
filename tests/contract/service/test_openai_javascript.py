"""The OpenAI dialect with OpenAI's own JavaScript client, against a real gunicorn."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from rockiln.domain.fault import Fault, FaultCode
from rockiln.store.records import Job, Lease
from support.front import ServedFront

PROGRAM = Path(__file__).resolve().parent / "javascript" / "client.cjs"
# Both are put there by tests/run.
NODE, PACKAGES = Path(sys.prefix, "bin", "node"), Path(sys.prefix, "node_modules")


@pytest.fixture(scope="module")
def came(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of each call, and the jobs that the service has had, oldest first."""
    folder = tmp_path_factory.mktemp("javascript")
    Image.new("RGB", (128, 128), "red").save(folder / "boat.png")
    with ServedFront(folder) as front:

        def work(leased: tuple[Lease, Job]) -> None:
            lease, job = leased
            if job.parameters.prompt == "fails":
                front.hand.fail(leased, Fault(FaultCode.BAD_OUTPUT, "the picture is black"))
                return
            preview = front.store.artefacts.preview_path(job.id, 0)
            for step in range(1, 9) if job.parameters.prompt == "previews" else ():
                preview.parent.mkdir(parents=True, exist_ok=True)
                front.store.jobs.record_step(lease, 0, step)
                preview.write_bytes(f"preview {step}".encode())
                front.hand.tell_preview(leased, 0, step)
            front.hand.finish(leased)

        with front.hand.working(work):
            ran = subprocess.run(
                [NODE, PROGRAM, front.url, folder / "boat.png"],
                env={**os.environ, "NODE_PATH": str(PACKAGES)},
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        assert ran.returncode == 0, ran.stderr
        said: dict[str, Any] = json.loads(ran.stdout)
        said["jobs"] = front.store.jobs.page(limit=100)[::-1]
        said["fetched"] = httpx.get(said["url"]["data"][0]["url"]).content
    return said


def jobs(came: dict[str, Any], prompt: str) -> list[Job]:
    return [job for job in came["jobs"] if job.parameters.prompt == prompt]


def test_pictures_come_as_bytes_and_as_addresses(came: dict[str, Any]) -> None:
    first, second = jobs(came, "boat")
    assert [base64.b64decode(each["b64_json"]) for each in came["bytes"]["data"]] == [
        f"webp {first.id} {index}".encode() for index in (0, 1)
    ]
    assert (first.parameters.width, first.parameters.num_images) == (128, 2)
    assert came["fetched"] == f"png {second.id} 0".encode()


def test_what_others_add_is_understood(came: dict[str, Any]) -> None:
    (job,) = jobs(came, "extra")
    asked = job.parameters
    assert (asked.negative_prompt, asked.seed, asked.num_inference_steps) == ("fog", 7, 5)
    assert (asked.guidance_scale, asked.scheduler) == (3.5, "euler_ancestral")


def test_a_stream_shows_previews_then_the_picture(came: dict[str, Any]) -> None:
    (job,) = jobs(came, "previews")
    *partial, last = came["stream"]
    assert [event["type"] for event in partial] == ["image_generation.partial_image"] * 2
    assert [event["partial_image_index"] for event in partial] == [0, 1]
    assert all(base64.b64decode(event["b64_json"]).startswith(b"preview ") for event in partial)
    assert last["type"] == "image_generation.completed"
    assert base64.b64decode(last["b64_json"]) == f"png {job.id} 0".encode()
    assert "the picture is black" in came["failing_stream"]["message"]


def test_edits_and_variations_start_from_their_pictures(came: dict[str, Any]) -> None:
    edited, varied = (job.parameters for job in came["jobs"] if job.parameters.image)
    assert (edited.prompt, edited.strength) == ("edit", 0.5)
    assert varied.num_images == len(came["variation"]["data"]) == 2


def test_models_are_listed(came: dict[str, Any]) -> None:
    assert [model["id"] for model in came["models"]] == ["paper"]
    assert came["model"]["object"] == "model"


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("unknown_model", {"name": "NotFoundError", "status": 404, "code": "model_not_found"}),
        ("wrong_size", {"name": "BadRequestError", "status": 400, "param": "size"}),
        ("not_repeated", {"name": "InternalServerError", "status": 500, "code": "bad_output"}),
    ],
)
def test_refusals_are_what_the_client_expects(
    came: dict[str, Any], call: str, expected: dict[str, Any]
) -> None:
    assert came[call].items() >= expected.items()


def test_a_job_that_fails_for_good_is_not_tried_again(came: dict[str, Any]) -> None:
    assert len(jobs(came, "fails")) == 2  # the stream and the call, each once
