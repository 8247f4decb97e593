"""How an answer is told to a person."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rockiln.cli.client import AddressError, Client, Reply

ONE = {"field": "width", "message": "it is more than 512", "hint": "use 64 to 512"}
TWO = {"field": "steps", "message": "there is no such field", "hint": "leave it out"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"detail": "too full", "hint": "Wait."}, "too full\nnext: Wait."),
        (
            {"detail": "width: it is more than 512", "hint": "Correct it.", "errors": [ONE]},
            "width: it is more than 512\nnext: use 64 to 512",
        ),
        (
            {"detail": "two", "errors": [ONE, TWO]},
            "two\n  width: it is more than 512\n  steps: there is no such field\n"
            "next: use 64 to 512; leave it out",
        ),
        ([], "the answer is 400, without a reason"),
    ],
)
def test_a_problem_is_told_as_cause_and_next_step(content: Any, told: str) -> None:
    assert Reply(400, {}, json.dumps(content).encode()).told() == told


def test_an_answer_of_something_else_is_told_too() -> None:
    assert Reply(502, {}, b"<html>").told() == "the answer is 502, without a reason"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("https://lab.example/ui/", "https://lab.example"),
        ("http://[::1]:9", "http://[::1]:9"),
    ],
)
def test_addresses_are_taken_as_people_write_them(url: str, expected: str) -> None:
    assert Client(url).url == expected


@pytest.mark.parametrize("url", ["ftp://host", "http://", "http://host:99999", ""])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(AddressError):
        Client(url)
