"""Keys, scopes and owners, where the service is published off loopback."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask.testing import FlaskClient

from rockiln.store.keys import Scope
from support.front import SOURCE, Front, ServedFront

PUBLISHED = "192.0.2.1:8000"
# The long form: ROCKILN_TEST_PAIRS=10000.
PAIRS = int(os.environ.get("ROCKILN_TEST_PAIRS", "400"))
NewFront = Callable[..., Front]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def front(new_front: NewFront) -> Front:
    return new_front(published_address=PUBLISHED)


def make(front: Front, *scopes: Scope, **more: Any) -> dict[str, str]:
    return bearer(front.store.keys.create("somebody", scopes or ("generate",), **more))


def submit(front: Front, key: dict[str, str]) -> Any:
    return front.client.post(
        "/generate", json={"prompt": "a boat"}, headers=key | {"Prefer": "respond-async"}
    )


OPEN = {
    "/livez",
    "/readyz",
    "/docs",
    "/openapi.json",
    "/problems/<slug>",
    "/ui/static/<path:filename>",
    "/ui/sign-in",
    "/ui/sign-out",
}


def test_every_route_but_the_probes_and_the_docs_needs_a_key(front: Front) -> None:
    tried = 0
    for rule in front.app.url_map.iter_rules():
        path = rule.rule.replace("<path:filename>", "x")
        for name in rule.arguments:
            path = path.replace(f"<{name}>", "0" * 32)
        for method in (rule.methods or set()) - {"OPTIONS", "HEAD"}:
            answer = front.client.open(path, method=method)
            asks = "/ui/sign-in?" in answer.headers.get("Location", "")
            assert (answer.status_code == 401 or asks) == (rule.rule not in OPEN), rule.rule
            assert not asks or (method, answer.status_code) == ("GET", 303)
            tried += 1
    assert tried > 50
    assert front.client.get("/no/such/route").status_code == 401


@pytest.mark.parametrize("path", ["/jobs", "/v1/models", "/sdapi/v1/options"])
@pytest.mark.parametrize(
    "header",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer rk_\u00e9"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Nothing known"},
        {"Authorization": "Basic dXNlcjp3cm9uZw=="},
    ],
)
def test_wrong_keys_open_nothing(front: Front, path: str, header: dict[str, str]) -> None:
    make(front)
    answer = front.client.get(path, headers=header)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert answer.headers["x-should-retry"] == "false"
    if path.startswith("/v1"):
        assert answer.get_json()["error"]["type"] == "authentication_error"


def test_a_key_opens_as_bearer_and_as_password_until_it_is_revoked(front: Front) -> None:
    token = front.store.keys.create("somebody", ["generate"])
    (key,) = front.store.keys.all()
    for given in ({"headers": bearer(token)}, {"auth": ("anybody", token)}):
        assert front.client.get("/jobs", **given).status_code == 200
    front.store.keys.revoke(key.id)
    assert front.client.get("/jobs", headers=bearer(token)).status_code == 401


def test_scopes(front: Front) -> None:
    generate, models, admin = make(front), make(front, "models"), make(front, "admin")
    for key, path, method, opens in (
        (generate, "/system", "GET", False),
        (generate, "/metrics", "GET", False),
        (generate, "/models", "GET", True),
        (models, "/jobs", "GET", False),
        (generate, "/models/none", "DELETE", False),
        (models, "/models/none", "DELETE", True),
        (admin, "/models/none", "DELETE", True),
        (admin, "/system", "GET", True),
        (admin, "/jobs", "GET", True),
    ):
        answer = front.client.open(path, method=method, headers=key)
        assert (answer.status_code != 403) == opens, (path, answer.text)


def test_a_key_has_its_own_limit_of_waiting_jobs(front: Front) -> None:
    small, usual = make(front, max_jobs=1), make(front)
    assert submit(front, small).status_code == 202
    refused = submit(front, small)
    assert (refused.status_code, refused.get_json()["reason"]) == (429, "owner")
    assert [submit(front, usual).status_code for _ in range(3)] == [202] * 3


def test_owners_never_meet(front: Front) -> None:
    """Random pairs of a key and a job: all that looks at, follows or changes one."""
    chance = random.Random(7)  # noqa: S311 (no secret)
    keys = [make(front) for _ in range(6)]
    owned: dict[str, int] = {}
    for number, key in enumerate(keys * 3):
        owned[submit(front, key).get_json()["id"]] = number % len(keys)
    done = [front.hand.finish(front.hand.lease()).id for _ in range(6)]
    running = front.hand.lease()[1].id
    jobs = list(owned)
    before = {job.id: job.state for job in front.store.jobs.page(limit=100)}
    client = front.client
    for _ in range(PAIRS):
        job_id, caller = chance.choice(jobs), chance.randrange(len(keys))
        if owned[job_id] == caller:
            assert client.get(f"/jobs/{job_id}", headers=keys[caller]).status_code == 200
            continue
        assert_hidden(client, chance, job_id, keys[caller])
    assert {job.id: job.state for job in front.store.jobs.page(limit=100)} == before
    for number, key in enumerate(keys):
        listed = {
            job["id"] for job in client.get("/jobs?limit=100", headers=key).get_json()["jobs"]
        }
        assert listed == {job_id for job_id, owner in owned.items() if owner == number}
        seen = client.get("/sdapi/v1/progress", headers=key).get_json()["current_task"]
        assert seen is None or owned[seen] == number
        page = client.get("/ui/gallery", headers=key).text
        assert not any(job_id in page for job_id in done if owned[job_id] != number)
        if owned[running] != number:
            client.post("/sdapi/v1/interrupt", headers=key)
    assert not front.store.jobs.get(running).cancel_requested
    everything = client.get("/jobs?limit=100", headers=make(front, "admin")).get_json()["jobs"]
    assert len(everything) == len(jobs)


def assert_hidden(
    client: FlaskClient, chance: random.Random, job_id: str, key: dict[str, str]
) -> None:
    method, path, more = chance.choice(
        [
            ("GET", "", {}),
            ("DELETE", "", {}),
            ("DELETE", "?purge=true", {}),
            ("GET", "/events", {}),
            ("GET", "/events", {"Accept": "text/event-stream", "Prefer": "cancel-on-disconnect"}),
            ("GET", "/artefacts/0", {}),
            ("POST", "/move", {}),
            ("POST", "/retry", {}),
        ]
    )
    sent: Any = {"method": method, "headers": key | more}
    if method == "POST":
        sent["json"] = {"to": "first"}
    ours = client.open(f"/jobs/{job_id}{path}", **sent)
    nobodys = client.open(f"/jobs/{'0' * 32}{path}", **sent)
    assert ours.status_code == nobodys.status_code == 404
    # Not even its existence is told.
    assert ours.text.replace(job_id, "") == nobodys.text.replace("0" * 32, "")
    page = client.get(f"/ui/jobs/{job_id}", headers=key)
    assert page.status_code == 404


@pytest.mark.slow
def test_keys_are_kept_hashed_and_out_of_the_log(tmp_path: Path) -> None:
    none = ServedFront(tmp_path / "none", published_address=PUBLISHED)
    with pytest.raises(AssertionError, match=r"keys\.missing"):
        none.__enter__()
    none.__exit__()
    front = ServedFront(tmp_path / "some", published_address=PUBLISHED)
    environment = {**front.environment(), "PYTHONPATH": str(SOURCE)}

    def rockiln(*words: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "rockiln", *words],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    token = rockiln("keys", "create", "a name", "--scope", "generate").strip()
    with front:
        for header, status in ((bearer(token), 200), (bearer(token + "x"), 401)):
            assert httpx.get(f"{front.url}/jobs", headers=header).status_code == status
        (key,) = front.store.keys.all()
        listed = rockiln("keys", "list", "--json")
        assert "a name" in listed
        assert token not in listed
        rockiln("keys", "revoke", key.id)
        assert httpx.get(f"{front.url}/jobs", headers=bearer(token)).status_code == 401
    assert token not in front.log.read_text()
    file = front.store.database.file
    assert file is not None
    for kept in file.parent.glob("rockiln.db*"):
        assert token.encode() not in kept.read_bytes()


@pytest.mark.parametrize("origin", ["https://a.example", "https://b.example"])
def test_pages_of_other_origins_may_call_only_where_it_is_set(
    new_front: NewFront, origin: str
) -> None:
    client = new_front(cors_origins="https://a.example").client
    allowed = origin == "https://a.example"
    headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site", "Prefer": "respond-async"}
    answer = client.post("/generate", json={"prompt": "a boat"}, headers=headers)
    assert answer.status_code == (202 if allowed else 403)
    assert answer.headers.get("Access-Control-Allow-Origin") == (origin if allowed else None)
    asked = client.options("/generate", headers=headers)
    assert ("Authorization" in asked.headers.get("Access-Control-Allow-Headers", "")) == allowed


def test_no_origin_is_allowed_by_default(new_front: NewFront) -> None:
    answer = new_front().client.get("/jobs", headers={"Origin": "https://a.example"})
    assert "Access-Control-Allow-Origin" not in answer.headers
