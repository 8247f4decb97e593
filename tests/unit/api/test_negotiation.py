"""``Accept`` and ``Prefer``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from rockiln.api.negotiation import Preferences, choose_answer, read_preferences
from rockiln.api.problems import ProblemError
from rockiln.domain.request import PictureFormat


def accept(header: str) -> MIMEAccept:
    return parse_accept_header(header, MIMEAccept)


@pytest.mark.parametrize(
    ("header", "wanted", "kind", "picture_format"),
    [
        ("", None, "picture", "png"),
        ("", "webp", "picture", "webp"),
        ("*/*", None, "picture", "png"),
        ("image/*", None, "picture", "png"),
        ("image/*;q=0.2, image/jpeg", None, "picture", "jpeg"),
        ("image/webp, image/png", None, "picture", "png"),
        ("image/png;q=0, image/*", None, "picture", "jpeg"),
        ("application/json", None, "json", "png"),
        ("application/json", "jpeg", "json", "jpeg"),
        ("application/json, text/plain, */*", None, "json", "png"),
        ("application/json, image/webp;q=0.5", None, "json", "webp"),
        ("application/json;q=0.1, image/webp;q=0.5", None, "picture", "webp"),
        ("text/html, */*;q=0.1", None, "picture", "png"),
        ("IMAGE/JPEG", None, "picture", "jpeg"),
        ("application/*", None, "json", "png"),
    ],
)
def test_accept_decides_between_picture_and_json(
    header: str, wanted: PictureFormat | None, kind: str, picture_format: str
) -> None:
    answer = choose_answer(accept(header), wanted)
    assert (answer.kind, answer.picture_format, answer.warnings) == (kind, picture_format, ())


def test_format_wins_with_a_warning() -> None:
    answer = choose_answer(accept("image/jpeg"), "png")
    assert (answer.kind, answer.picture_format) == ("picture", "png")
    assert len(answer.warnings) == 1


@pytest.mark.parametrize("header", ["text/html", "image/gif", "application/json;q=0", "*/*;q=0"])
def test_what_cannot_be_sent_is_refused(header: str) -> None:
    with pytest.raises(ProblemError) as caught:
        choose_answer(accept(header), None)
    assert caught.value.kind.slug == "not-acceptable"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", Preferences()),
        ("respond-async", Preferences(respond_async=True)),
        ("Respond-Async, wait=5", Preferences(respond_async=True, wait_seconds=5)),
        ('wait="7"', Preferences(wait_seconds=7)),
        ("wait=1, wait=9", Preferences(wait_seconds=1)),
        ("wait=-1, wait=abc, return=minimal; foo", Preferences()),
        ("wait=99999999999999999999", Preferences()),
    ],
)
def test_prefer_is_read_and_what_is_unknown_ignored(header: str, expected: Preferences) -> None:
    assert read_preferences(header) == expected


@pytest.mark.parametrize(
    ("preferences", "seconds"),
    [
        (Preferences(), 120),
        (Preferences(respond_async=True), 0),
        (Preferences(wait_seconds=5), 5),
        (Preferences(respond_async=True, wait_seconds=5), 5),
        (Preferences(wait_seconds=999), 120),
    ],
)
def test_a_preference_shortens_the_wait(preferences: Preferences, seconds: float) -> None:
    assert preferences.seconds_to_wait(120) == seconds


@given(st.text())
def test_no_prefer_header_is_too_strange(header: str) -> None:
    read_preferences(header)
