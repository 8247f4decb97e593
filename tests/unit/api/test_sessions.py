"""Signing in with a key, and forms that only the browser that got them can send."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from rockiln.store.keys import Scope
from rockiln.store.sessions import SessionStore
from support.front import Front, ServedFront

PUBLISHED = "192.0.2.1:8000"
NewFront = Callable[..., Front]


@pytest.fixture
def front(new_front: NewFront) -> Front:
    return new_front(published_address=PUBLISHED)


def sign_in(front: Front, *scopes: Scope, **more: Any) -> tuple[str, TestResponse]:
    """With a new key; returns the key's id."""
    token = front.store.keys.create("somebody", scopes or ("generate",))
    answer = front.send_form("/ui/sign-in", {"key": f" {token}\n", **more})
    assert answer.status_code == 303, answer.text
    return front.store.keys.all()[-1].id, answer


def held(client: FlaskClient, name: str = "rockiln") -> str:
    cookie = client.get_cookie(name)
    assert cookie is not None
    return cookie.value


def opens(front: Front) -> bool:
    answer = front.client.get("/ui/queue")
    assert answer.status_code == 200 or "/ui/sign-in" in answer.headers["Location"]
    return answer.status_code == 200


def test_a_key_is_exchanged_for_a_session(front: Front) -> None:
    asked = front.client.get("/ui/gallery?q=a boat&before=7")
    assert asked.status_code == 303
    page = front.client.get(asked.headers["Location"])
    wanted = re.search(r'name="next" value="([^"]*)"', page.text)
    assert wanted is not None
    _, answer = sign_in(front, next=wanted[1].replace("&amp;", "&"))
    assert answer.headers["Location"].startswith("/ui/gallery?q=a")
    sent = SimpleCookie(answer.headers["Set-Cookie"])["rockiln"]
    assert (sent["httponly"], sent["samesite"], sent["secure"]) == (True, "Lax", "")
    assert int(sent["max-age"]) == front.settings.session_seconds
    assert not sent.value.startswith("rk_")
    assert "Sign out" in front.client.get("/ui/queue").text


def test_a_session_sees_and_makes_what_its_key_does(front: Front) -> None:
    key_id, _ = sign_in(front)
    sent = front.send_form("/ui/generate", {"prompt": "a boat"})
    assert sent.status_code == 303
    (job,) = front.store.jobs.page(limit=9)
    assert job.owner == key_id
    front.hand.finish(front.hand.lease())
    for path in (f"/jobs/{job.id}", f"/jobs/{job.id}/artefacts/0", f"/jobs/{job.id}/events"):
        assert front.client.get(path).status_code == 200
    assert front.client.get("/ui/system").status_code == 403  # the scope of its key


def test_a_cookie_alone_changes_nothing(front: Front) -> None:
    sign_in(front, "admin")
    front.send_form("/ui/generate", {"prompt": "a boat"})
    (job,) = front.store.jobs.page(limit=9)
    for method, path in (("POST", "/generate"), ("DELETE", f"/jobs/{job.id}?purge=true")):
        answer = front.client.open(path, method=method, json={"prompt": "a boat"})
        assert answer.status_code == 401
    assert [each.id for each in front.store.jobs.page(limit=9)] == [job.id]


@pytest.mark.parametrize("key", ["", "rk_wrong", "rk_\u00e9", "x" * 5000, "revoked"])
def test_a_wrong_key_signs_nobody_in(front: Front, key: str) -> None:
    if key == "revoked":
        key = front.store.keys.create("somebody", ["generate"])
        front.store.keys.revoke(front.store.keys.all()[0].id)
    answer = front.send_form("/ui/sign-in", {"key": key})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="rockiln"'  # no dialog of its own
    assert "not known, or it was revoked" in answer.text
    assert not key or key not in answer.text
    assert not opens(front)


def test_a_session_ends_with_its_key(front: Front) -> None:
    key_id, _ = sign_in(front)
    assert opens(front)
    front.store.keys.revoke(key_id)
    assert not opens(front)


def test_a_session_expires(front: Front) -> None:
    sign_in(front)
    later = time.time() + front.settings.session_seconds
    front.store.sessions = SessionStore(front.store.database, clock=lambda: later - 60)
    assert opens(front)
    front.store.sessions = SessionStore(front.store.database, clock=lambda: later + 1)
    assert not opens(front)
    refused = front.client.post("/ui/generate", content_type="multipart/form-data")
    assert refused.status_code == 401
    assert 'href="/ui/sign-in"' in refused.text
    by_htmx = {"HX-Request": "true", "HX-Current-URL": "http://localhost/ui/queue?a=b"}
    part = front.client.get("/ui/queue/live", headers=by_htmx)
    assert part.status_code == 401
    assert part.headers["HX-Redirect"] == "/ui/sign-in?next=/ui/queue?a%3Db"


def test_signing_out_ends_it_everywhere(front: Front) -> None:
    sign_in(front)
    stolen = held(front.client)
    assert front.send_form("/ui/sign-out").status_code == 303
    assert not opens(front)
    front.client.set_cookie("rockiln", stolen)
    assert not opens(front)


def test_a_planted_cookie_is_not_signed_in(front: Front) -> None:
    """Session fixation: what the browser had before opens nothing afterwards."""
    front.client.set_cookie("rockiln", "planted-by-somebody")
    sign_in(front)
    assert held(front.client) != "planted-by-somebody"
    first = held(front.client)
    sign_in(front)  # again: the first session is over
    for old in ("planted-by-somebody", first):
        front.client.set_cookie("rockiln", old)
        assert not opens(front)


def test_over_tls_the_cookie_stays_on_this_host(front: Front) -> None:
    by_tls = {"X-Forwarded-Proto": "https"}  # which the proxy sets
    answer = front.client.get("/ui/sign-in", base_url="https://localhost", headers=by_tls)
    sent = SimpleCookie(answer.headers["Set-Cookie"])["__Host-rockiln"]
    assert (sent["secure"], sent["path"], sent["domain"]) == (True, "/", "")


@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.example/ui/",
        "//evil.example",
        "/ui/\\evil",
        "/docs",
        "/ui/a\r\nSet-Cookie: a=b",
    ],
)
def test_nobody_is_led_elsewhere(front: Front, wanted: str) -> None:
    _, answer = sign_in(front, next=wanted)
    assert answer.headers["Location"] == "/ui/"


def test_there_is_nothing_to_sign_in_to_on_loopback(new_front: NewFront) -> None:
    front = new_front()
    assert front.client.get("/ui/sign-in?next=/ui/queue").headers["Location"] == "/ui/queue"
    assert front.send_form("/ui/sign-in", {"key": "any"}).headers["Location"] == "/ui/"
    assert "Sign out" not in front.client.get("/ui/").text


def changing_routes(front: Front) -> list[str]:
    rules = [
        rule
        for rule in front.app.url_map.iter_rules()
        if rule.endpoint.startswith("web.") and "POST" in (rule.methods or ())
    ]
    values = dict.fromkeys(("job_id", "model_id"), "0" * 32) | {"act": "cancel", "to": "first"}
    with front.app.test_request_context(base_url="http://localhost"):
        adapter = front.app.create_url_adapter(None) or front.app.url_map.bind("localhost")
        return [
            adapter.build(rule.endpoint, {name: values[name] for name in rule.arguments})
            for rule in rules
        ]


@pytest.mark.parametrize("published", [PUBLISHED, "127.0.0.1:8000"])
@pytest.mark.parametrize("browser", ["no token", "foreign token", "no cookie", "htmx"])
def test_a_form_that_the_browser_did_not_get_here_is_refused(
    new_front: NewFront, published: str, browser: str
) -> None:
    front = new_front(published_address=published)
    if front.settings.key_required:
        sign_in(front, "admin")
    else:
        front.client.get("/ui/")
    given = {"form_token": "0" * 64} if browser == "foreign token" else {"a": "b"}
    auth: Any = None
    if browser == "no cookie":
        front.client.delete_cookie("rockiln")
        if front.settings.key_required:  # as a browser that has a key by HTTP Basic
            auth = ("any", front.store.keys.create("another", ["admin"]))
    routes = changing_routes(front)
    assert len(routes) >= 8
    for path in routes:
        answer = front.client.post(
            path,
            data=given,
            content_type="multipart/form-data",
            auth=auth,
            headers={"HX-Request": "true"} if browser == "htmx" else {},
        )
        assert answer.status_code == 403, (path, answer.text)
        assert "Load the page anew" in answer.text
        assert browser != "htmx" or answer.headers["HX-Retarget"] == "#main"


def test_another_browsers_token_is_refused(front: Front) -> None:
    sign_in(front, "admin")
    other = front.app.test_client()
    page = other.get("/ui/sign-in").text
    token = re.search(r'name="form_token" value="(\w+)"', page)
    assert token is not None
    answer = front.client.post(
        "/ui/generate",
        data={"form_token": token[1], "prompt": "a boat"},
        content_type="multipart/form-data",
    )
    assert answer.status_code == 403
    assert front.store.jobs.page(limit=9) == []


@pytest.mark.parametrize("published", [PUBLISHED, "127.0.0.1:8000"])
@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost:3000", "null"])
def test_a_form_of_another_origin_is_refused_even_with_the_token(
    new_front: NewFront, published: str, origin: str
) -> None:
    front = new_front(published_address=published)
    if front.settings.key_required:
        sign_in(front)
    answer = front.send_form("/ui/generate", {"prompt": "a boat"}, headers={"Origin": origin})
    assert answer.status_code == 403
    assert "Another site may not change anything here" in answer.text
    assert front.store.jobs.page(limit=9) == []


def test_every_form_that_changes_something_has_the_token(new_front: NewFront) -> None:
    front = new_front()
    done = front.submit(prompt="a done one")
    front.hand.finish(front.hand.lease())
    waiting = front.submit()
    token = re.compile(r'<input type="hidden" name="form_token" value="[0-9a-f]{64}">')
    forms = 0
    for path in (
        "/ui/", "/ui/form", "/ui/queue", "/ui/queue/live", "/ui/gallery", "/ui/models",
        f"/ui/jobs/{done}", f"/ui/jobs/{waiting}", f"/ui/jobs/{waiting}/live", "/ui/sign-in",
    ):  # fmt: skip
        page = front.client.get(path, follow_redirects=True).text
        found = re.findall(r'(?s)<form[^>]*method="post".*?</form>', page)
        assert all(token.search(form) for form in found), path
        forms += len(found)
    assert forms >= 9


@pytest.mark.slow
def test_neither_key_nor_session_is_in_the_log_or_the_store(tmp_path: Path) -> None:
    front = ServedFront(tmp_path, published_address=PUBLISHED)
    token = front.store.keys.create("somebody", ["generate"])
    with front, httpx.Client(base_url=front.url) as client:
        for key in (token + "x", token):
            page = client.get("/ui/sign-in").text
            (form_token,) = re.findall(r'name="form_token" value="(\w+)"', page)
            fields = {"key": key, "form_token": form_token}
            client.post("/ui/sign-in", files={name: (None, text) for name, text in fields.items()})
        assert client.get("/ui/queue").status_code == 200
        session = client.cookies["rockiln"]
        log = front.log.read_text()
        assert "session.opened" in log
        assert "session.refused" in log
        file = front.store.database.file
        assert file is not None
        kept = b"".join(each.read_bytes() for each in file.parent.glob("rockiln.db*"))
    for secret in (token, session, form_token):
        assert secret not in log
        assert secret.encode() not in kept
