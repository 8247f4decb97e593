"""A request ends in a picture, whichever way it is asked for."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
from pathlib import Path

from PIL import Image

from support.service import Service

README = Path(__file__).resolve().parents[2] / "README.md"
PROMPT = "a red boat on a lake at sunset, snowy mountains"


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def test_the_readmes_curl_line_saves_a_picture(service: Service, tmp_path: Path) -> None:
    line = re.search(r"curl -X POST.*?-o boat\.png", README.read_text(), re.DOTALL)
    assert line is not None
    command = line.group().replace("http://127.0.0.1:8000", service.url)
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True, capture_output=True)
    picture = opened((tmp_path / "boat.png").read_bytes())
    assert picture.size == (64, 64)
    assert f"{PROMPT}\n" in picture.info["parameters"]
    assert "Seed: 7" in picture.info["parameters"]


def test_the_same_request_makes_the_same_bytes(service: Service) -> None:
    body = {"prompt": PROMPT, "seed": 11, "width": 96}
    first, second = (service.post(json=body).content for _ in range(2))
    assert first == second
    assert service.post(json=body | {"seed": 12}).content != first


def test_a_png_says_how_to_make_its_bytes_again(service: Service) -> None:
    original = service.post(
        json={
            "prompt": PROMPT,
            "negative_prompt": "snow",
            "height": 96,
            "num_inference_steps": 3,
            "guidance_scale": 3.5,
            "scheduler": "euler_ancestral",
        }
    )
    request = json.loads(str(opened(original.content).info["rockiln"]))["parameters"]
    again = service.post(json=request)
    assert again.status_code == 200, again.text
    assert again.content == original.content


def test_json_carries_the_pictures_and_every_parameter(service: Service) -> None:
    answer = service.post(
        json={"prompt": PROMPT, "seed": 5, "num_images": 2},
        headers={"Accept": "application/json"},
    ).json()
    assert answer["state"] == "done"
    pictures = [base64.b64decode(item["base64"]) for item in answer["pictures"]]
    assert len(set(pictures)) == 2
    solo = [service.post(json={"prompt": PROMPT, "seed": seed}).content for seed in (5, 6)]
    assert pictures == solo  # picture i of a job is the picture of seed + i
    assert answer["parameters"]["scheduler"] == "dpmpp_2m"
    assert answer["pictures"][0]["details"]["policies"]


def test_formats_are_what_was_asked_for(service: Service) -> None:
    for media_type, name in (("image/jpeg", "JPEG"), ("image/webp", "WEBP"), ("image/png", "PNG")):
        answer = service.post(json={"prompt": PROMPT}, headers={"Accept": media_type})
        assert answer.headers["content-type"] == media_type
        assert opened(answer.content).format == name


def test_without_waiting_the_job_tells_where_the_picture_is(service: Service) -> None:
    answer = service.post(json={"prompt": PROMPT}, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202
    job = service.wait_for(answer.json()["id"], "done")
    assert answer.headers["location"].endswith(f"/jobs/{job['id']}")
    picture = service.get(f"/jobs/{job['id']}/artefacts/0")
    assert opened(picture.content).size == (64, 64)


def test_a_repeated_submission_is_one_job(service: Service) -> None:
    headers = {"Idempotency-Key": "boat-1", "Prefer": "respond-async"}
    first, second = (service.post(json={"prompt": PROMPT}, headers=headers) for _ in range(2))
    assert first.json()["id"] == second.json()["id"]
    other = service.post(json={"prompt": "another"}, headers=headers)
    assert other.status_code == 422


def test_a_prompt_past_the_models_window_is_told(service: Service) -> None:
    answer = service.post(
        json={"prompt": "a red boat on a lake " * 40}, headers={"Accept": "application/json"}
    ).json()
    assert any("token" in warning for warning in answer["pictures"][0]["warnings"])


def test_refused_requests_do_not_reach_the_worker(service: Service) -> None:
    before = len(service.get("/jobs?limit=100").json()["jobs"])
    for body in ({}, {"prompt": ""}, {"prompt": "a", "width": 7}, {"prompt": "a", "model": "no"}):
        answer = service.post(json=body)
        assert 400 <= answer.status_code < 500
        assert answer.headers["content-type"] == "application/problem+json"
    assert len(service.get("/jobs?limit=100").json()["jobs"]) == before
