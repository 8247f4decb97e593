"""The service as a user meets it: pictures, refusals, and what a kill of a container does."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.timeout(300)
ROLE = Path(__file__).resolve().parents[2] / "ansible" / "roles" / "inference_service"
URL = "http://127.0.0.1:8000"
PROMPT = '{"prompt": "a red boat on a lake at sunset, snowy mountains", "seed": 7}'
LONG = '{"prompt": "a red boat", "seed": 8, "num_inference_steps": 60}'


def post(host: Any, body: str, *options: str) -> Any:
    words = " ".join(
        ["curl -sS -X POST", f"{URL}/generate", "-H 'Content-Type: application/json'", *options]
    )
    return host.run(f"{words} -d %s", body)


def wait_for(host: Any, path: str, done: Any, seconds: float = 240) -> dict[str, Any]:
    """Poll a JSON page until it is as wanted."""
    deadline = time.monotonic() + seconds
    while True:
        page: dict[str, Any] = json.loads(host.check_output("curl -sS %s", f"{URL}{path}"))
        if done(page):
            return page
        if time.monotonic() > deadline:
            logs = host.run("docker logs --tail 20 rockiln-worker")
            pytest.fail(f"{path} stayed {page}\n{logs.stdout}{logs.stderr}")
        time.sleep(0.25)


def test_curl_line_of_the_readme_makes_a_picture(host: Any) -> None:
    answer = post(host, PROMPT, "-o /tmp/boat.png -w '%%{http_code} %%{content_type}'")
    assert answer.stdout == "200 image/png"
    assert host.check_output("head -c 4 /tmp/boat.png | od -An -tx1").split() == [
        "89",
        "50",
        "4e",
        "47",
    ]


def test_same_seed_makes_the_same_picture_as_bootstrap_did(host: Any) -> None:
    post(host, PROMPT, "-o /tmp/again.png")
    assert host.run("cmp /tmp/again.png /var/lib/rockiln/first-picture.png").rc == 0


def test_page_for_people_answers(host: Any) -> None:
    assert "<form" in host.check_output("curl -sS %s", f"{URL}/ui/")


def test_body_over_the_cap_is_a_problem_document(host: Any) -> None:
    defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
    too_many = defaults["inference_service_body_max_bytes"] + 1
    host.check_output("head -c %s /dev/zero | tr '\\0' ' ' > /tmp/large", str(too_many))
    answer = host.run(
        "curl -sS -X POST %s -H 'Content-Type: application/json' --data-binary @/tmp/large "
        "-w ' %%{http_code} %%{content_type}'",
        f"{URL}/generate",
    )
    assert answer.stdout.endswith(" 413 application/problem+json")


def test_foreign_host_name_is_refused(host: Any) -> None:
    answer = host.run(
        "curl -sS -o /dev/null -w '%%{http_code}' -H 'Host: evil.example' %s", f"{URL}/system"
    )
    assert answer.stdout.startswith("4")


def test_killed_worker_still_ends_in_a_picture(host: Any) -> None:
    accepted = json.loads(post(host, LONG, "-H 'Prefer: respond-async'").stdout)
    wait_for(host, accepted["href"], lambda job: job["progress"]["steps_done"] > 0)
    host.check_output("docker kill rockiln-worker")
    job = wait_for(host, accepted["href"], lambda job: job["state"] in {"done", "failed"})
    assert job["state"] == "done", job
    assert job["attempt"] > 1
    assert job["pictures"][0]["href"]


@pytest.mark.parametrize("part", ["api", "proxy"])
def test_killed_front_comes_back(host: Any, part: str) -> None:
    host.check_output("docker kill rockiln-%s", part)
    deadline = time.monotonic() + 60
    while host.run("curl -sS --max-time 2 --fail %s", f"{URL}/livez").rc != 0:
        assert time.monotonic() < deadline
        time.sleep(0.25)


def test_dead_api_is_explained_by_the_proxy(host: Any) -> None:
    host.check_output("docker stop rockiln-api")
    answer = host.run("curl -sS -i %s", f"{URL}/system").stdout
    host.check_output("docker start rockiln-api")
    wait_for(host, "/readyz", lambda page: page.get("ready") is True)
    assert answer.split()[1] in {"503", "504"}
    assert "Retry-After" in answer
    assert '"hint"' in answer


def test_stopped_worker_stays_stopped(host: Any) -> None:
    host.check_output("docker stop rockiln-worker")
    time.sleep(6)  # longer than the keeper's time of grace
    state = host.check_output("docker container inspect --format {{.State.Status}} rockiln-worker")
    host.check_output("docker start rockiln-worker")
    wait_for(host, "/readyz", lambda page: page.get("ready") is True)
    assert state == "exited"
