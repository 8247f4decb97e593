"""The OpenAPI document is the routes, is valid, and is what the answers look like."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from rockiln.api.describe import operation_of
from rockiln.api.problems import KINDS
from rockiln.domain.fault import Fault, FaultCode
from support.front import Front, open_front

# Pages for people, not part of the API.
UNDESCRIBED = {"web", "static"}


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with open_front(tmp_path_factory.mktemp("front"), broken={"torn": "why"}) as opened:
        yield opened


@pytest.fixture(scope="module")
def document(front: Front) -> dict[str, Any]:
    answer = front.client.get("/openapi.json")
    assert answer.mimetype == "application/json"
    content: dict[str, Any] = answer.get_json()
    return content


def routes(app: Flask) -> set[tuple[str, str]]:
    found = set()
    for rule in app.url_map.iter_rules():
        if rule.endpoint.partition(".")[0] in UNDESCRIBED:
            continue
        path = rule.rule.replace("<", "{").replace(">", "}")
        found |= {(path, method) for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
    return found


def test_the_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    validate(document)


def test_documented_operations_are_the_routes(front: Front, document: dict[str, Any]) -> None:
    documented = {
        (path, method.upper()) for path, item in document["paths"].items() for method in item
    }
    assert documented == routes(front.app)


def test_every_view_of_the_api_describes_itself(front: Front) -> None:
    for rule in front.app.url_map.iter_rules():
        described = operation_of(front.app.view_functions[rule.endpoint]) is not None
        assert described == (rule.endpoint.partition(".")[0] not in UNDESCRIBED), rule


def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    ids = [each["operationId"] for item in document["paths"].values() for each in item.values()]
    assert len(ids) == len(set(ids))


def test_every_problem_is_documented_by_some_route(document: dict[str, Any]) -> None:
    text = json.dumps(document["paths"])
    # What the HTTP layer itself refuses, before there is a route, and what the pages do.
    before_routes = {
        "unknown-route", "method-not-allowed", "request-timeout", "length-required",
        "address-too-long", "headers-too-large", "too-many-calls", "proxy-unavailable",
        "proxy-timeout", "wrong-form-token",
    }  # fmt: skip
    assert {slug for slug in KINDS if f"({slug})" not in text} == before_routes


def test_answers_are_what_the_document_says(front: Front, document: dict[str, Any]) -> None:
    front.hand.report()
    done, failed, waiting = (front.submit() for _ in range(3))
    front.hand.finish(front.hand.lease(), warnings=("told",))
    front.hand.fail(front.hand.lease(), Fault(FaultCode.ENGINE_DIED, "signal 9"))
    calls = [
        ("GET", "/jobs", "/jobs", 200),
        ("GET", "/jobs/{job_id}", f"/jobs/{done}", 200),
        ("GET", "/jobs/{job_id}", f"/jobs/{failed}", 200),
        ("GET", "/jobs/{job_id}", f"/jobs/{'0' * 32}", 404),
        ("GET", "/jobs/{job_id}/artefacts/{index}", f"/jobs/{done}/artefacts/9", 404),
        ("DELETE", "/jobs/{job_id}", f"/jobs/{waiting}", 200),
        ("DELETE", "/jobs/{job_id}", f"/jobs/{done}", 409),
        ("GET", "/jobs", "/jobs?limit=0", 400),
        ("GET", "/models", "/models", 200),
        ("GET", "/system", "/system", 200),
        ("GET", "/livez", "/livez", 200),
        ("GET", "/readyz", "/readyz", 200),
        ("POST", "/generate", "/generate", 415),
    ]
    for method, path, address, status in calls:
        answer = front.client.open(address, method=method)
        assert answer.status_code == status, (address, answer.text)
        described = document["paths"][path][method.lower()]["responses"][str(status)]
        schema = described["content"][answer.mimetype]["schema"]
        validator = Draft202012Validator({**schema, "components": document["components"]})
        problems = [error.message for error in validator.iter_errors(answer.get_json())]
        assert problems == [], (address, problems)


def test_the_docs_page_shows_every_operation(front: Front, document: dict[str, Any]) -> None:
    page = front.client.get("/docs").text
    for item in document["paths"].values():
        for operation in item.values():
            assert f'id="{operation["operationId"]}"' in page
    assert "<script" not in page
