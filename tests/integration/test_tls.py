"""https by the proxy: real nginx with the role's template, a certificate by openssl, a real api."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from support.certificates import Pair, make_pair
from support.front import ServedFront
from support.service import eventually, free_port
from support.shield import Shield

HSTS_SECONDS = 86400


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def shield(tmp_path_factory: pytest.TempPathFactory, pair: Pair) -> Iterator[Shield]:
    folder = tmp_path_factory.mktemp("tls")
    with (
        ServedFront(folder) as front,
        Shield(folder, front.port, pair=pair, hsts_seconds=HSTS_SECONDS) as running,
        front.hand.working(),
    ):
        front.hand.report()
        yield running


@pytest.fixture
def client(shield: Shield, pair: Pair) -> Iterator[httpx.Client]:
    context = ssl.create_default_context(cafile=pair.certificate)
    url = f"https://localhost:{shield.tls_port}"
    with httpx.Client(base_url=url, verify=context, timeout=60) as opened:
        yield opened


def test_nginx_takes_the_configuration(shield: Shield) -> None:
    checked = shield.check()
    assert (checked.returncode, "[warn]" in checked.stderr) == (0, False), checked.stderr


def test_a_picture_is_made_and_told_of_with_https(client: httpx.Client) -> None:
    body = {"prompt": "a boat", "response_format": "url"}
    answer = client.post("/v1/images/generations", json=body)
    assert answer.status_code == 200, answer.text
    address = answer.json()["data"][0]["url"]
    assert address.startswith(f"{client.base_url}")
    assert client.get(address).content.startswith(b"png ")


def test_only_tls_1_2_and_newer_is_spoken(shield: Shield) -> None:
    assert spoken(shield, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    assert spoken(shield, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    with pytest.raises(ssl.SSLError), pytest.warns(DeprecationWarning, match="TLSv1_1"):
        spoken(shield, ssl.TLSVersion.TLSv1_1)


def spoken(shield: Shield, version: ssl.TLSVersion) -> str | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")  # the client would speak the old ones
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", shield.tls_port), timeout=10) as plain,
        context.wrap_socket(plain) as wrapped,
    ):
        return wrapped.version()


def test_browsers_are_kept_to_https_over_https_alone(shield: Shield, client: httpx.Client) -> None:
    told = client.get("/livez").headers
    assert told["Strict-Transport-Security"] == f"max-age={HSTS_SECONDS}"
    assert "Strict-Transport-Security" not in httpx.get(f"{shield.url}/livez").headers


def test_without_that_setting_nothing_is_said(tmp_path: Path, shield: Shield, pair: Pair) -> None:
    with Shield(tmp_path, shield.port, pair=pair) as other:
        context = ssl.create_default_context(cafile=pair.certificate)
        answer = httpx.get(f"https://localhost:{other.tls_port}/livez", verify=context)
    assert answer.status_code == 200
    assert "Strict-Transport-Security" not in answer.headers


def test_plain_http_is_sent_on_unless_it_gave_something_away(shield: Shield) -> None:
    url = f"http://localhost:{shield.tls_port}/ui/?a=1"
    moved = httpx.get(url)
    assert (moved.status_code, moved.headers["Location"]) == (308, url.replace("http", "https"))
    for refused in (
        httpx.get(url, headers={"Authorization": "Bearer secret"}),
        httpx.post(url, json={"prompt": "a boat"}),
    ):
        assert refused.status_code == 400
        assert refused.headers["Content-Type"] == "application/problem+json"
        assert "https://" in refused.json()["hint"]


GUIDE = Path(__file__).resolve().parents[2] / "ansible" / "docs" / "tls.md"


def test_the_guides_own_proxy_does_the_same(tmp_path: Path, pair: Pair) -> None:
    """As `rockiln serve` is run behind it: with a key, because others reach it."""
    block = re.findall(r"(?m)^    server \{\n(?:    .*\n)+    \}\n", GUIDE.read_text())[0]
    port = free_port()
    front = ServedFront(tmp_path, tls_address="0.0.0.0:8443", allowed_hosts="kiln.example")
    with pytest.raises(AssertionError, match=r"0\.0\.0\.0:8443 is not loopback"), front:
        pass
    key = front.store.keys.create("lab", ["generate"], None)
    for written, here in (
        ("8443", f"127.0.0.1:{port}"),
        ("/etc/ssl/kiln.pem", str(pair.certificate)),
        ("/etc/ssl/private/kiln.key", str(pair.key)),
        ("http://127.0.0.1:8000", front.url),
    ):
        assert written in block
        block = block.replace(written, here)
    file = tmp_path / "nginx.conf"
    main = f"daemon off; user root; pid {tmp_path}/pid; events {{}}"
    file.write_text(f"{main} http {{ {block} }}")
    context = ssl.create_default_context(cafile=pair.certificate)
    url = f"https://localhost:{port}"
    body = {"prompt": "a boat", "response_format": "url"}
    with front, served_by(file), httpx.Client(base_url=url, verify=context, timeout=60) as client:
        eventually(lambda: answers(client), "nginx answers")
        assert client.post("/generate", json=body).status_code == 401
        headers = {"Authorization": f"Bearer {key}", "Host": f"kiln.example:{port}"}
        with front.hand.working():
            made = client.post("/v1/images/generations", json=body, headers=headers)
    assert made.json()["data"][0]["url"].startswith(f"https://kiln.example:{port}/jobs/")


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/livez").is_success
    except httpx.TransportError:
        return False


@contextmanager
def served_by(file: Path) -> Iterator[None]:
    process = subprocess.Popen(["nginx", "-e", "stderr", "-c", str(file)])
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)
