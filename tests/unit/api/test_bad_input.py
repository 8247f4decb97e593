"""What clients send that is no request: told with field, limit and hint; nothing gets through."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from rockiln.api.body import parse_json
from rockiln.api.documents import Problem
from rockiln.api.problems import KINDS, PROBLEM_TYPE
from rockiln.domain.request import PROMPT_MAX_CHARS
from support.front import Front

FIELDS: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    ({}, "prompt", {"max_length": PROMPT_MAX_CHARS}),
    ({"prompt": ""}, "prompt", {"min_length": 1}),
    ({"prompt": " \n\t"}, "prompt", {}),
    ({"prompt": "a" * (PROMPT_MAX_CHARS + 1)}, "prompt", {"max_length": PROMPT_MAX_CHARS}),
    ({"prompt": 7}, "prompt", {}),
    ({"prompt": "a", "width": 0}, "width", {"min": 64, "max": 512, "multiple_of": 8}),
    ({"prompt": "a", "width": 7}, "width", {"min": 64, "max": 512, "multiple_of": 8}),
    ({"prompt": "a", "width": 100000}, "width", {"min": 64, "max": 512, "multiple_of": 8}),
    ({"prompt": "a", "height": 520}, "height", {"min": 64, "max": 512}),
    ({"prompt": "a", "height": "64"}, "height", {"multiple_of": 8}),
    ({"prompt": "a", "height": 64.0}, "height", {"multiple_of": 8}),
    ({"prompt": "a", "width": True}, "width", {"multiple_of": 8}),
    ({"prompt": "a", "num_inference_steps": 0}, "num_inference_steps", {"min": 1, "max": 150}),
    ({"prompt": "a", "num_inference_steps": 10**9}, "num_inference_steps", {"max": 150}),
    ({"prompt": "a", "guidance_scale": -1}, "guidance_scale", {"min": 0.0, "max": 30.0}),
    ({"prompt": "a", "seed": 2**32}, "seed", {"max": 2**32 - 1}),
    ({"prompt": "a", "scheduler": "magic"}, "scheduler", {}),
    ({"prompt": "a", "num_images": 99}, "num_images", {"min": 1, "max": 10}),
    ({"prompt": "a", "model": "../../etc/passwd"}, "model", {}),
    ({"prompt": "a", "format": "bmp"}, "format", {"one_of": ["png", "jpeg", "webp"]}),
    ({"prompt": "a", "widht": 64}, "widht", {}),
    # Fields of fields: schemathesis found {"enable_hr": true, "hr_scale": -5.4e247} answered 500.
    ({"prompt": "a", "hires": {"scale": -1}}, "hires.scale", {"min": 1.0, "max": 4.0}),
    ({"prompt": "a", "hires": {"width": 7, "height": 64}}, "hires.width", {"multiple_of": 8}),
    ({"prompt": "a", "hires": {"stength": 1}}, "hires.stength", {}),
    ({"prompt": "a", "loras": [{"name": ""}]}, "loras.0.name", {}),
    ({"prompt": "a", "loras": [{"name": "b", "weight": 9}]}, "loras.0.weight", {"max": 4.0}),
]


@pytest.mark.parametrize(("body", "field", "limit"), FIELDS)
def test_a_wrong_field_is_named_with_its_limit(
    shared_front: Front, body: dict[str, Any], field: str, limit: dict[str, Any]
) -> None:
    answer = shared_front.client.post("/generate", json=body)
    error = answer.get_json()["errors"][0]
    assert (answer.status_code, error["field"]) == (400, field)
    assert limit.items() <= (error.get("limit") or {}).items()
    assert error.get("hint")
    assert answer.headers["x-should-retry"] == "false"
    assert shared_front.store.jobs.page(limit=1) == []


def test_every_wrong_field_is_named_at_once(front: Front) -> None:
    body = {"prompt": "", "width": 7, "stepz": 1}
    answer = front.client.post("/generate", json=body).get_json()
    assert {error["field"] for error in answer["errors"]} == {"prompt", "width", "stepz"}
    assert "and 2 more" in answer["detail"]


def test_a_misspelt_field_is_told_the_one_that_was_meant(front: Front) -> None:
    answer = front.client.post("/generate", json={"prompt": "a", "widht": 64}).get_json()
    assert answer["errors"][0]["hint"] == "did you mean width?"


NOT_JSON = [
    (b"", "the body is empty"),
    (b"{", "line 1"),
    (b'{"prompt": "a", "guidance_scale": NaN}', "NaN"),
    (b'{"guidance_scale": -Infinity}', "Infinity"),
    (b'{"guidance_scale": 1e999}', "too large"),
    (b'{"seed": 1' + b"0" * 5000 + b"}", "more than 64 characters"),
    (b'{"prompt": "a", "prompt": "b"}', "more than once"),
    (b'{"prompt": "a\\u0000"}', "U+0000"),
    (b'{"prompt": "\xff"}', "UTF-8"),
    (b"[" * 200_000, "nested"),
    (b'{"a":' * 100_000, "nested"),
    (b"[]", "not a JSON object"),
    (b'"prompt"', "not a JSON object"),
]


@pytest.mark.parametrize(("body", "words"), NOT_JSON)
def test_a_body_that_is_not_one_json_object_is_refused(
    shared_front: Front, body: bytes, words: str
) -> None:
    answer = shared_front.client.post("/generate", data=body, content_type="application/json")
    assert (answer.status_code, answer.get_json()["code"]) == (400, "invalid_json")
    assert words in answer.get_json()["detail"]


def test_a_lone_surrogate_is_no_text(front: Front) -> None:
    answer = front.client.post(
        "/generate", data=b'{"prompt": "\\ud800"}', content_type="application/json"
    )
    assert "surrogate" in answer.get_json()["errors"][0]["message"]


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_another_content_type_is_refused(front: Front, content_type: str | None) -> None:
    answer = front.client.post("/generate", data=b'{"prompt": "a"}', content_type=content_type)
    assert answer.status_code == 415
    assert "application/json" in answer.get_json()["hint"]


def test_a_body_over_the_limit_is_told_the_limit(front: Front) -> None:
    limit_bytes = front.settings.max_body_bytes
    for size_bytes in (limit_bytes + 1, limit_bytes + 2):
        answer = front.client.post(
            "/generate", data=b" " * size_bytes, content_type="application/json"
        )
        assert (answer.status_code, answer.get_json()["limit"]) == (413, {"max_bytes": limit_bytes})


def test_a_body_of_just_the_limit_is_read(front: Front) -> None:
    body = b'{"prompt": "a"}'.ljust(front.settings.max_body_bytes)
    answer = front.client.post(
        "/generate", data=body, content_type="application/json", headers={"Prefer": "wait=0"}
    )
    assert answer.status_code == 202


def test_an_unknown_route_is_told_the_nearest(front: Front) -> None:
    answer = front.client.post("/generat", json={"prompt": "a"})
    assert (answer.status_code, answer.get_json()["code"]) == (404, "unknown_route")
    assert "/generate" in answer.get_json()["hint"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"), [("PUT", "/generate", "POST"), ("POST", "/jobs", "GET")]
)
def test_a_wrong_method_is_told_the_right_ones(
    front: Front, method: str, path: str, allowed: str
) -> None:
    answer = front.client.open(path, method=method)
    assert (answer.status_code, answer.get_json()["code"]) == (405, "method_not_allowed")
    assert allowed in answer.headers["Allow"].split(", ")


def test_an_error_nobody_expected_is_answered_without_its_inside(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("secret inside")

    monkeypatch.setattr(front.store.jobs, "queue", fail)
    with capture_logs() as logged:
        answer = front.client.get("/system")
    assert (answer.status_code, answer.mimetype) == (500, PROBLEM_TYPE)
    assert "secret" not in answer.text
    told = next(line for line in logged if line["event"] == "request.failed")
    assert told["request_id"] == answer.get_json()["request_id"]
    assert str(told["exc_info"]) == "secret inside"


def test_a_store_that_does_not_answer_is_told_as_such(front: Front) -> None:
    front.store.close()
    for path in front.settings.store_dir.glob("rockiln.db*"):
        path.unlink()
    answer = front.client.get("/jobs")
    assert (answer.status_code, answer.get_json()["code"]) == (503, "store_unavailable")
    assert answer.headers["x-should-retry"] == "true"


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=6,
)
NAMES = st.sampled_from(
    ["prompt", "negative_prompt", "width", "height", "num_inference_steps", "guidance_scale",
     "seed", "scheduler", "num_images", "model", "format", "hires", "loras", "strength"]
) | st.text(max_size=10)  # fmt: skip
INNER = st.sampled_from(["scale", "width", "height", "strength", "name", "weight"])
LIKELY = (
    ANY_JSON
    | st.sampled_from(["a boat", "paper", "euler", "png", 64, 8, 1, 4.5])
    | st.dictionaries(INNER, ANY_JSON, max_size=3)
    | st.lists(st.dictionaries(INNER, ANY_JSON, max_size=3), max_size=2)
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(body=st.dictionaries(NAMES, LIKELY, max_size=8) | ANY_JSON, prefer=st.text(max_size=20))
def test_whatever_is_sent_is_accepted_or_explained(front: Front, body: Any, prefer: str) -> None:
    answer = front.client.post(
        "/generate",
        data=json.dumps(body).encode(),
        content_type="application/json",
        headers={"Prefer": "wait=0, " + prefer.encode("ascii", "replace").decode()}
        if prefer.isprintable()
        else {"Prefer": "wait=0"},
    )
    assert_explained(answer.status_code, answer.mimetype, answer.data)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=st.binary(max_size=200), accept=st.text(st.characters(codec="latin-1"), max_size=40))
def test_whatever_bytes_are_sent_are_explained(front: Front, body: bytes, accept: str) -> None:
    clean = "".join(letter for letter in accept if letter.isprintable())
    answer = front.client.post(
        "/generate", data=body, content_type="application/json", headers={"Accept": clean}
    )
    assert_explained(answer.status_code, answer.mimetype, answer.data)


def assert_explained(status: int, mimetype: str | None, data: bytes) -> None:
    if status == 202:
        return
    assert mimetype == PROBLEM_TYPE
    problem = Problem.model_validate_json(data)
    kind = KINDS[problem.type.removeprefix("/problems/")]
    assert problem.status == status == kind.status
    # 429: the queue of a test that was kept on for many examples
    assert status < 500
    assert problem.detail
    assert problem.hint


@given(st.dictionaries(st.text(st.characters(exclude_characters="\0")), st.integers() | st.none()))
def test_good_json_is_read_as_python_reads_it(content: dict[str, Any]) -> None:
    text = json.dumps(content, ensure_ascii=False)
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return
    assert parse_json(data) == content
