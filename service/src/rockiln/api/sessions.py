"""One cookie: it says who has signed in, and ties every form to the browser that got it.

Its value is a session's token, or a random one of a visitor's that opens nothing. What forms carry
is derived from it, so a page of another site, which cannot read either, cannot send one.
"""

from __future__ import annotations

import hmac
import secrets
from typing import Any

from flask import Flask, Response, g, request

from rockiln.api.problems import ProblemError

FORM_TOKEN = "form_token"  # noqa: S105 (the name of the field)
# A browser takes a __Host- cookie only from this very host, over TLS.
_COOKIE, _TLS_COOKIE = "rockiln", "__Host-rockiln"


def init_sessions(app: Flask) -> None:
    """Lets every page ask for the token of its forms, and sends the cookie that it is made of."""
    app.jinja_env.globals["form_token"] = form_token

    @app.after_request
    def send_cookie(response: Response) -> Response:
        if "new_cookie" in g:
            response.set_cookie(
                _cookie_name(),
                g.new_cookie,
                max_age=g.get("cookie_seconds"),
                secure=_by_tls(),
                httponly=True,
                # Not Strict: who follows a link from elsewhere to a job is signed in there, too.
                samesite="Lax",
            )
        return response


def cookie() -> str | None:
    """The cookie of this request."""
    return request.cookies.get(_cookie_name()) or None


def keep_cookie(token: str, *, seconds: float) -> None:
    """Sends a session's token, which the browser keeps for so long."""
    g.new_cookie, g.cookie_seconds = token, int(seconds)


def forget_cookie() -> None:
    """Makes a visitor of the browser; forms that it got before are void."""
    g.new_cookie = secrets.token_urlsafe(32)


def form_token() -> str:
    """What the forms of this page carry. A browser without a cookie gets one with the answer."""
    held = g.get("new_cookie") or cookie()
    if held is None:
        forget_cookie()
        held = g.new_cookie
    return _derived(held)


def check_form_token(given: Any) -> None:
    """Raises ProblemError: the form is not one that this browser got from here."""
    held = cookie()
    if held is None:
        raise ProblemError("wrong-form-token", "the browser sent no cookie with the form")
    sent = given.encode("utf-8", "replace") if isinstance(given, str) else b""
    if not hmac.compare_digest(sent, _derived(held).encode()):
        detail = "the form's token is not that of this browser" if sent else "it has no token"
        raise ProblemError("wrong-form-token", detail)


def _derived(held: str) -> str:
    return hmac.new(held.encode("utf-8", "surrogateescape"), b"form", "sha256").hexdigest()


def _cookie_name() -> str:
    return _TLS_COOKIE if _by_tls() else _COOKIE


def _by_tls() -> bool:
    """As the proxy says. Who lies here lies about a cookie of its own."""
    return request.is_secure or request.headers.get("X-Forwarded-Proto") == "https"
