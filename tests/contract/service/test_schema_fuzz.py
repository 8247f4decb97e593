"""Calls made up from the OpenAPI document: no unexplained 5xx, no answer it does not describe."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

from support.front import open_front

LONG = os.environ.get("ROCKILN_LONG") == "1"
# Operations without a parameter have few; the others make up for them.
EXAMPLES_PER_OPERATION, CASES = (300, 5_000) if LONG else (25, 500)
# A schema cannot say what a model's own sides are, that 64.0 is no whole number, or that an Accept
# without any type we send is refused; what is refused for it is still checked in all else.
PICTURE_CALLS = (
    "POST /generate",
    "POST /v1/images/generations",
    "POST /v1/images/edits",
    "POST /v1/images/variations",
    "POST /sdapi/v1/txt2img",
    "POST /sdapi/v1/img2img",
    "POST /sdapi/v1/options",
    "POST /sdapi/v1/png-info",
    "POST /api/image",
)
EXCLUDED: dict[str, list[Any]] = {label: [positive_data_acceptance] for label in PICTURE_CALLS}


@pytest.mark.timeout(7200)
def test_any_call_is_answered_as_documented(tmp_path: Path) -> None:
    # The stand-in for a worker reports once; on a slow machine that would be long ago at the end.
    settled: dict[str, Any] = {
        "waiting_slots": 0,
        "queue_max_jobs": 10_000,
        "worker_stale_seconds": 3600,
    }
    with open_front(tmp_path, **settled) as front:
        front.hand.report()
        schema = schemathesis.openapi.from_wsgi("/openapi.json", front.app)
        operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
        assert len(operations) >= 11
        assert sum(map(check, operations)) >= CASES


def check(operation: schemathesis.APIOperation[Any, Any, Any, Any]) -> int:
    """Returns how many calls were made."""
    calls = 0

    @settings(
        max_examples=EXAMPLES_PER_OPERATION,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def call(case: schemathesis.Case[Any]) -> None:
        nonlocal calls
        calls += 1
        case.call_and_validate(excluded_checks=EXCLUDED.get(operation.label))

    call()
    return calls
