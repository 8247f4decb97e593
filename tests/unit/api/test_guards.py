"""Hosts, origins and headers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from support.front import Front

BODY = {"prompt": "a boat"}


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:9", "LOCALHOST:1234"])
def test_names_of_this_host_are_answered(client: FlaskClient, host: str) -> None:
    assert client.get("/livez", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "a,localhost", "[:"],
)
def test_a_name_that_was_rebound_to_this_host_is_refused(client: FlaskClient, host: str) -> None:
    answer = client.get("/livez", headers={"Host": host})
    assert (answer.status_code, answer.get_json()["code"]) == (421, "misdirected_request")


def test_names_can_be_added(new_front: Callable[..., Front]) -> None:
    client = new_front(allowed_hosts="Lab.example, other.example").client
    assert client.get("/livez", headers={"Host": "lab.example:80"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "null"},
    ],
)
def test_a_page_of_another_origin_changes_nothing(front: Front, headers: dict[str, str]) -> None:
    job_id = front.submit()
    for method, path in (("POST", "/generate"), ("DELETE", f"/jobs/{job_id}")):
        answer = front.client.open(path, method=method, json=BODY, headers=headers)
        assert (answer.status_code, answer.get_json()["code"]) == (403, "cross_origin_request")
    assert len(front.store.jobs.page(limit=9)) == 1
    assert front.client.get("/jobs", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://localhost"},
    ],
)
def test_programs_and_our_own_pages_may(front: Front, headers: dict[str, str]) -> None:
    headers = {**headers, "Prefer": "wait=0"}
    assert front.client.post("/generate", json=BODY, headers=headers).status_code == 202


@pytest.mark.parametrize("path", ["/livez", "/ui/", "/none-such", "/ui/static/style.css", "/docs"])
def test_every_answer_has_the_strict_headers(client: FlaskClient, path: str) -> None:
    with client.get(path) as answer:
        headers = answer.headers
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert "Cache-Control" in headers


@pytest.mark.parametrize("path", ["/ui/static/../app.py", "/ui/static/%2e%2e/templates/base.html"])
def test_static_files_are_only_those_of_the_folder(client: FlaskClient, path: str) -> None:
    assert client.get(path).status_code == 404
