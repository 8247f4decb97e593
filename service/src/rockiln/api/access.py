"""Who calls and what they may: the one place that knows.

Published on loopback, nobody needs a key and all are one owner. Published on anything else every
call brings one, but for probes, the documentation and the files of the pages; a browser that has
signed in brings a cookie in its place, which changes something by the forms of the pages alone.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Flask, Response, g, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from rockiln.api.problems import ProblemError
from rockiln.api.services import services
from rockiln.api.sessions import cookie
from rockiln.settings import Settings
from rockiln.store.keys import Key, Scope
from rockiln.store.records import Job

_OPEN_BLUEPRINTS = frozenset({"health", "docs"})
_SIGN_IN_ENDPOINTS = frozenset({"web.sign_in_page", "web.sign_in", "web.sign_out"})
_ADMIN_BLUEPRINTS = frozenset({"system", "measurements"})
_MODEL_PATHS = ("/models", "/ui/models")
_SAFE_METHODS = frozenset({"GET", "HEAD"})
_NO_KEY = "the call brings no key, and no browser that is signed in sent it"


def init_access(app: Flask, settings: Settings) -> None:
    """Installs the check before every view, where one is needed."""
    if not settings.key_required:
        return

    @app.before_request
    def check_key() -> AnyResponse | None:
        # OPTIONS says what a route takes, and does nothing.
        if request.method == "OPTIONS" or request.endpoint in {"static", *_SIGN_IN_ENDPOINTS}:
            return None
        if request.blueprint in _OPEN_BLUEPRINTS:
            return None
        token = _token_of_request()
        key = _key_of_session() if token is None else services().store.keys.find(token)
        if key is None:
            if token is None and request.blueprint == "web" and request.method in _SAFE_METHODS:
                return _to_sign_in()
            raise ProblemError(
                "missing-key",
                _NO_KEY if token is None else "the key is not known, or revoked",
            )
        g.key, g.signed_in = key, token is None
        scope = _scope_of_route()
        if not key.may(scope):
            raise ProblemError(
                "insufficient-scope", f"the key has not the scope {scope}", scope=scope
            )
        return None

    @app.context_processor
    def signed_in() -> dict[str, bool]:
        return {"signed_in": g.get("signed_in", False)}


def key_of_request() -> Key | None:
    """The key of the call; None where nobody needs one."""
    key: Key | None = g.get("key")
    return key


def owner_of_request() -> str:
    """The owner of what this request makes."""
    key = key_of_request()
    return "" if key is None else key.id


def owner_to_see() -> str | None:
    """Whose jobs this request may look at and change; None for everybody's."""
    key = key_of_request()
    return None if key is None or key.may("admin") else key.id


def may_see(job: Job) -> bool:
    """Whether the request may look at the job, and cancel it."""
    return owner_to_see() in {None, job.owner}


def max_jobs_of_owner() -> int:
    """How many jobs of this owner may wait."""
    key = key_of_request()
    if key is not None and key.max_jobs is not None:
        return key.max_jobs
    return services().settings.queue_max_jobs_per_owner


def _key_of_session() -> Key | None:
    """A cookie comes with whatever a page makes the browser send: alone it changes nothing."""
    token = cookie()
    if token is None or (request.blueprint != "web" and request.method not in _SAFE_METHODS):
        return None
    return services().store.sessions.find(token)


def _to_sign_in() -> AnyResponse:
    """And back from there; a part that htmx asked for is no page to come back to."""
    part = request.headers.get("HX-Request") == "true"
    page = urlsplit(request.headers.get("HX-Current-URL", "")) if part else urlsplit(request.url)
    wanted = page.path + (f"?{page.query}" if page.query else "")
    target = url_for("web.sign_in_page", next=wanted)
    if not part:
        return redirect(target, code=303)
    return Response(
        status=401,
        headers={"HX-Redirect": target, "WWW-Authenticate": 'Bearer realm="rockiln"'},
    )


def _token_of_request() -> str | None:
    """Bearer, or the password of HTTP Basic, which is what A1111's clients and browsers have."""
    given = request.authorization
    if given is None:
        return None
    token = given.token if given.type == "bearer" else given.password
    return token or None


def _scope_of_route() -> Scope:
    blueprint = request.blueprint or ""
    view = (request.endpoint or "").removeprefix("web.")
    if blueprint in _ADMIN_BLUEPRINTS or (blueprint == "web" and view.startswith("system")):
        return "admin"
    if request.path.startswith(_MODEL_PATHS) and request.method not in _SAFE_METHODS:
        return "models"
    return "generate"
