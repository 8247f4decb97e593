"""The table of problems is whole, and its pages are there."""

from __future__ import annotations

import re

import pytest
from flask.testing import FlaskClient

from rockiln.api.problems import KIND_BY_STATUS, KINDS, kind_of, kind_of_failure
from rockiln.domain import errors
from rockiln.domain.errors import IllegalTransitionError, LeaseLostError, RockilnError
from rockiln.domain.fault import FaultCode
from support.front import Front
from support.shield import TEMPLATE

# Never the answer to a call: the first is a bug, the second is a worker's own affair.
INTERNAL_ERRORS = {IllegalTransitionError, LeaseLostError}


def test_every_condition_of_the_service_has_a_row() -> None:
    classes = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, RockilnError) and value is not RockilnError
    }
    assert {error.slug() for error in classes - INTERNAL_ERRORS} <= set(KINDS)
    for error in INTERNAL_ERRORS:
        assert kind_of(error("a bug")).slug == "internal-error"


@pytest.mark.parametrize("code", list(FaultCode))
def test_every_fault_has_a_row_of_its_own(code: FaultCode) -> None:
    assert kind_of_failure("failed", code).code == code


def test_a_job_of_a_later_version_is_told_as_an_engine_error() -> None:
    assert kind_of_failure("failed", "a_fault_of_tomorrow").slug == "engine-error"
    assert kind_of_failure("failed", None).slug == "engine-error"


def test_rows_of_the_framework_have_the_status_they_stand_for() -> None:
    assert all(kind.status == status for status, kind in KIND_BY_STATUS.items())


@pytest.mark.parametrize("slug", sorted(KINDS))
def test_the_page_behind_a_type_explains_it(shared_front: Front, slug: str) -> None:
    page = shared_front.client.get(KINDS[slug].type)
    assert (page.status_code, page.mimetype) == (200, "text/html")
    assert KINDS[slug].code in page.text


def test_what_the_proxy_refuses_has_a_row_with_its_status() -> None:
    rows = re.findall(r"^  \((\d{3}), '[^']*', '([a-z-]+)',", TEMPLATE.read_text(), re.MULTILINE)
    assert len(rows) == 7
    for status, slug in rows:
        assert KINDS[slug].status == (503 if status == "502" else int(status))


def test_a_type_that_is_none_is_a_problem_itself(client: FlaskClient) -> None:
    assert client.get("/problems/none-such").get_json()["code"] == "unknown_problem"
