"""Bytes that no library would send, to every dialect: an answer below 500 or none, and no hang."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from rockiln.api.documents import Problem
from rockiln.api.error_forms import error_model
from support.front import ServedFront

# With those of test_schema_fuzz.py 10,000 cases, and 100,000 in the long form.
CASES = 95_000 if os.environ.get("ROCKILN_LONG") == "1" else 9_500
PATHS = (
    "/generate", "/jobs", "/jobs/0/events", "/v1/images/generations", "/v1/images/edits",
    "/v1/images/variations", "/v1/models", "/v1/models/%00", "/sdapi/v1/txt2img",
    "/sdapi/v1/img2img", "/sdapi/v1/options", "/sdapi/v1/png-info", "/sdapi/v1/progress",
    "/api/image", "/api/models", "/models", "/../etc/passwd", "/%2e%2e/%ff", "//", "/ui/",
    "/jobs/0/move", "/jobs/0/retry", "/ui/generate", "/ui/sign-in", "/ui/restore",
    "/ui/gallery?before=\xff",
)  # fmt: skip
PARTS = (
    b"{", b"}", b"[", b"]", b'"', b":", b",", b"\\", b"null", b"true", b"1e999", b"-0", b"\x00",
    b"\xff\xfe", b"\r\n", b'"prompt"', b'"size"', b'"n"', b'"image"', b'"seed"', b'"steps"',
    b'"init_images"', b'"override_settings"', b'"sd_model_checkpoint"', b'"\\ud800"',
    b"99999999999", b'"../../etc/passwd"', b'"512x512"',
    b"--x\r\nContent-Disposition: form-data; name=prompt\r\n\r\n",
    b"--x\r\nContent-Disposition: form-data; name=form_token\r\n\r\n", b'"hires"', b'"loras"',
)  # fmt: skip
TYPES = (
    "application/json", "multipart/form-data; boundary=x", "multipart/form-data", "text/plain", "",
    "application/json; charset=utf-7", "\xff",
)  # fmt: skip
METHODS = ("POST", "POST", "POST", "GET", "DELETE", "PUT", "OPTIONS", "post", "P\x01ST")


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedFront]:
    # No call waits for a picture: what is valid is refused with 429 or accepted with 202.
    with ServedFront(tmp_path_factory.mktemp("raw"), waiting_slots=0, queue_max_jobs=5) as served:
        yield served


def made_up(chance: random.Random) -> bytes:
    body = b"".join(chance.choices(PARTS, k=chance.randrange(12)))
    if chance.random() < 0.3:
        body = chance.randbytes(chance.randrange(200))
    if chance.random() < 0.3:
        body = b'{"prompt": "a", ' + chance.choice(PARTS) + b": " + chance.choice(PARTS) + b"}"
    length = len(body) if chance.random() < 0.9 else chance.randrange(1 << 26)
    head = (
        f"{chance.choice(METHODS)} {chance.choice(PATHS)} HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: {chance.choice(TYPES)}\r\nContent-Length: {length}\r\n"
        "Connection: close\r\n"
    ).encode("latin-1")
    if chance.random() < 0.2:
        extra = chance.choice(
            (b"Last-Event-ID", b"Prefer", b"Accept", b"Range", b"Authorization", b"Cookie")
        )
        head += extra + b": " + chance.randbytes(8).replace(b"\n", b" ") + b"\r\n"
    return head + b"\r\n" + body


def check_refusal(raw: bytes, answer: bytes) -> None:
    """What is refused says why, in the form of the dialect; a wrong method hears of the right."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    status = int(first.split()[1])
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    assert status != HTTPStatus.METHOD_NOT_ALLOWED or headers["allow"], raw
    if status < HTTPStatus.BAD_REQUEST:
        return
    assert len(body) == int(headers["content-length"]), raw
    match headers["content-type"].partition(";")[0]:
        case "application/problem+json":
            Problem.model_validate_json(body)
        case "application/json":
            form = error_model(raw.split()[1].decode("latin-1"))
            assert form is not None, (raw, answer)
            form[1].model_validate_json(body)
        case kind:
            assert (kind, b"</html>" in body, b" /ui" in raw) == ("text/html", True, True), raw


@pytest.mark.timeout(7200)
def test_no_bytes_make_it_fail_or_hang(front: ServedFront) -> None:
    chance = random.Random(11)  # noqa: S311 (no secret)
    answered = 0
    for _ in range(CASES):
        raw = made_up(chance)
        with socket.create_connection(("127.0.0.1", front.port), timeout=30) as connection:
            try:
                connection.sendall(raw)
                connection.shutdown(socket.SHUT_WR)
                answer = b""
                while part := connection.recv(1 << 16):
                    answer += part
            except ConnectionResetError:
                continue  # it would not read more of it
        assert not answer or answer.startswith(b"HTTP/1."), raw
        assert answer[9:10] != b"5", (raw, answer[:600])
        if answer:
            check_refusal(raw, answer)
        answered += bool(answer)
    assert answered > CASES / 2
    assert "Traceback" not in front.log.read_text()
