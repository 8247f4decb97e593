"""gunicorn's thread worker, with problem documents for what never reaches the app.

gunicorn's master loads this module and never answers a request: the app's modules are imported
only where an answer is made, which keeps the master at a third of the size.
"""

# ruff: noqa: PLC0415 (see above)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
from gunicorn.http.errors import (  # type: ignore[import-untyped]
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
)
from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from rockiln.api.problems import ProblemKind

log = structlog.get_logger("rockiln.api")


def kind_of_exception(error: BaseException) -> ProblemKind:
    """The row of what gunicorn raised."""
    from rockiln.api.problems import KINDS

    if isinstance(error, LimitRequestLine):
        return KINDS["address-too-long"]
    if isinstance(error, LimitRequestHeaders):
        return KINDS["headers-too-large"]
    return KINDS["bad-request" if isinstance(error, ParseException) else "internal-error"]


def unread_answer(error: BaseException) -> bytes:
    """The whole answer to a request that could not be read."""
    from rockiln.api.guards import HEADERS
    from rockiln.api.problems import PROBLEM_TYPE, problem

    kind = kind_of_exception(error)
    detail = "the HTTP parser refused it" if kind.status < 500 else "the answer could not be sent"  # noqa: PLR2004
    document = problem(kind, f"{detail} ({type(error).__name__})", instance="")
    body = document.model_dump_json(exclude_none=True).encode()
    headers = {
        "Content-Type": PROBLEM_TYPE,
        "Content-Length": str(len(body)),
        "Connection": "close",
        "x-should-retry": "false",
        **HEADERS,
    }
    lines = [f"HTTP/1.1 {kind.status} {kind.title}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class ProblemWorker(ThreadWorker):  # type: ignore[misc]
    """Differs from gunicorn's in one thing: the form of its errors."""

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:  # noqa: ARG002
        """Called for what cannot be parsed, and for an app that raised through its last handler."""
        kind = kind_of_exception(exc)
        if kind.slug == "internal-error":
            log.error("request.failed", exc_info=exc)
        else:  # without the request's own text: it may hold a prompt
            log.info("request.unreadable", reason=type(exc).__name__, status=kind.status)
        try:
            client.sendall(unread_answer(exc))
        except OSError:
            log.debug("client.left")
