"""The keys that a model's configs may have are those of the pinned libraries."""

from __future__ import annotations

from support.config_keys import TARGET, as_text


def test_keys_are_those_of_the_pinned_libraries() -> None:
    assert TARGET.read_text() == as_text(), "next: nox -s config_keys"
