"""What stands in front of every view: host names, origins, and the headers of every answer."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Flask, Response, current_app, request

from rockiln.api.problems import ProblemError
from rockiln.settings import Settings, split_address

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_CORS_HEADERS = "Authorization, Content-Type, Accept, Prefer, Idempotency-Key, Last-Event-ID"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        "object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: with it browsers send "Origin: null" with our own form.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def accepted_host_names(settings: Settings) -> frozenset[str]:
    """Names a browser may have been sent to; any other may be a name rebound to this address."""
    addresses = (settings.published_address, settings.tls_address)
    published = {split_address(each)[0].lower() for each in addresses if each}
    extra = (name.strip().lower() for name in settings.allowed_hosts.split(","))
    return _LOOPBACK_NAMES | published | {name for name in extra if name}


def init_guards(app: Flask, settings: Settings) -> None:
    """Installs the checks before, and the headers after, every view."""
    names = accepted_host_names(settings)
    origins = (origin.strip() for origin in settings.cors_origins.split(","))
    app.config["CORS_ORIGINS"] = frozenset(origin for origin in origins if origin)

    @app.before_request
    def check_host() -> None:
        host = request.headers.get("Host", "")
        # The port is not compared: a tunnel to this host may have another one.
        if _host_name(host) not in names:
            raise ProblemError("misdirected-request", f"the Host header is {host[:100]!r}")

    @app.before_request
    def check_origin() -> None:
        if request.method not in _SAFE_METHODS and not own_origin():
            raise ProblemError(
                "cross-origin-request", "the request comes from a page of another origin"
            )

    @app.after_request
    def add_headers(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Cache-Control", "no-store")
        if current_app.config["CORS_ORIGINS"]:
            response.headers.add("Vary", "Origin")
            _allow_origin(response)
        return response


def _allow_origin(response: Response) -> None:
    origin = _foreign_origin()
    if origin is None:
        return
    response.headers["Access-Control-Allow-Origin"] = origin
    if request.method == "OPTIONS":
        response.headers["Access-Control-Allow-Methods"] = response.headers.get("Allow", "")
        response.headers["Access-Control-Allow-Headers"] = _CORS_HEADERS


def _foreign_origin() -> str | None:
    """The origin of the request, if it is one of another site that may call."""
    origin = request.headers.get("Origin")
    allowed: frozenset[str] = current_app.config["CORS_ORIGINS"]
    return origin if origin in allowed else None


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def own_origin() -> bool:
    """Browsers say where a request comes from; programs say nothing and are let through."""
    if _foreign_origin() is not None:
        return True
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("Host")
