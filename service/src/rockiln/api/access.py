"""Who calls and what they may: the one place that knows.

Published on loopback, nobody needs a key and all are one owner. Published on anything else every
call brings one, but for probes, the documentation and the files of the pages.
"""

from __future__ import annotations

from flask import Flask, g, request

from rockiln.api.problems import ProblemError
from rockiln.api.services import services
from rockiln.settings import Settings
from rockiln.store.keys import Key, Scope
from rockiln.store.records import Job

_OPEN_BLUEPRINTS = frozenset({"health", "docs"})
_ADMIN_BLUEPRINTS = frozenset({"system", "measurements"})
_MODEL_PATHS = ("/models", "/ui/models")
_SAFE_METHODS = frozenset({"GET", "HEAD"})


def init_access(app: Flask, settings: Settings) -> None:
    """Installs the check before every view, where one is needed."""
    if not settings.key_required:
        return

    @app.before_request
    def check_key() -> None:
        # OPTIONS says what a route takes, and does nothing.
        if request.method == "OPTIONS" or request.endpoint == "static":
            return
        if request.blueprint in _OPEN_BLUEPRINTS:
            return
        token = _token_of_request()
        key = None if token is None else services().store.keys.find(token)
        if key is None:
            raise ProblemError(
                "missing-key",
                "the call brings no key" if token is None else "the key is not known, or revoked",
            )
        g.key = key
        scope = _scope_of_route()
        if not key.may(scope):
            raise ProblemError(
                "insufficient-scope", f"the key has not the scope {scope}", scope=scope
            )


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
