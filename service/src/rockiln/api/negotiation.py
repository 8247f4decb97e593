"""What the client wants back: ``Accept`` against what can be sent, and ``Prefer`` (RFC 7240)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from werkzeug.datastructures import MIMEAccept

from rockiln.api.documents import MEDIA_TYPES
from rockiln.api.problems import ProblemError
from rockiln.domain.request import PictureFormat

JSON_TYPE = "application/json"
_WAIT = re.compile(r"wait\s*=\s*\"?(\d{1,6})\"?")


@dataclass(frozen=True)
class Answer:
    """Attributes: ``warnings`` are sentences about contradictions that were resolved."""

    kind: Literal["picture", "json"]
    picture_format: PictureFormat
    warnings: tuple[str, ...] = ()


def choose_answer(accept: MIMEAccept, wanted_format: PictureFormat | None) -> Answer:
    """A picture unless JSON is what the client likes best.

    ``format`` decides the picture's type; if ``Accept`` does not take that type, the picture comes
    all the same, with a warning.

    Raises:
        ProblemError: nothing that is accepted can be sent.
    """
    if not accept:
        return Answer("picture", wanted_format or "png")
    # Quality first; among equals the type that is named over a wildcard, then the order here.
    offers = {media_type: _quality(accept, media_type) for media_type in MEDIA_TYPES.values()}
    formats: list[PictureFormat] = sorted(
        MEDIA_TYPES, key=lambda name: offers[MEDIA_TYPES[name]], reverse=True
    )
    best_format = formats[0]
    best_quality = offers[MEDIA_TYPES[best_format]]
    json_quality = _quality(accept, JSON_TYPE)
    if json_quality[0] <= 0 and best_quality[0] <= 0:
        raise ProblemError(
            "not-acceptable", "the Accept header takes no type that can be sent",
            available=[*MEDIA_TYPES.values(), JSON_TYPE],
        )  # fmt: skip
    picture_format = wanted_format or (best_format if best_quality[0] > 0 else "png")
    if json_quality > best_quality:
        return Answer("json", picture_format)
    if wanted_format is not None and offers[MEDIA_TYPES[wanted_format]][0] <= 0:
        return Answer(
            "picture",
            wanted_format,
            (f"format says {wanted_format}, the Accept header does not take it; format wins",),
        )
    return Answer("picture", picture_format)


def _quality(accept: MIMEAccept, media_type: str) -> tuple[float, int]:
    """Quality and closeness of the range that fits the type best."""
    group = media_type.partition("/")[0]
    closeness = {media_type: 2, f"{group}/*": 1, "*/*": 0}
    fitting = [
        (closeness[name], quality)
        for name, quality in (
            (value.partition(";")[0].strip().lower(), quality) for value, quality in accept
        )
        if name in closeness
    ]
    if not fitting:
        return (0.0, -1)
    close, quality = max(fitting)
    return (quality, close)


@dataclass(frozen=True)
class Preferences:
    """Attributes: ``wait_seconds`` as asked for, or None."""

    respond_async: bool = False
    cancel_on_disconnect: bool = False
    wait_seconds: int | None = None

    def seconds_to_wait(self, limit_seconds: float) -> float:
        """How long to hold the call. ``wait`` shortens the service's own limit, never extends it.

        ``respond-async`` alone means at once; with ``wait``, after that time (RFC 7240, 4.3).
        """
        if self.wait_seconds is not None:
            return min(float(self.wait_seconds), limit_seconds)
        return 0.0 if self.respond_async else limit_seconds

    def applied(self, *, answered_async: bool) -> str | None:
        """The value of ``Preference-Applied``."""
        words = ["respond-async"] if self.respond_async and answered_async else []
        if self.cancel_on_disconnect:
            words.append("cancel-on-disconnect")
        if self.wait_seconds is not None:
            words.append(f"wait={self.wait_seconds}")
        return ", ".join(words) or None


def read_preferences(header: str) -> Preferences:
    """Reads ``Prefer``. What is not known or not well formed is ignored, as the RFC asks."""
    respond_async = False
    cancel_on_disconnect = False
    wait_seconds: int | None = None
    for part in header.split(","):
        word = part.partition(";")[0].strip().lower()
        respond_async = respond_async or word == "respond-async"
        cancel_on_disconnect = cancel_on_disconnect or word == "cancel-on-disconnect"
        wait = _WAIT.fullmatch(word)
        if wait is not None and wait_seconds is None:
            wait_seconds = int(wait[1])
    return Preferences(respond_async, cancel_on_disconnect, wait_seconds)
