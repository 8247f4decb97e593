"""Signing in: a key is exchanged for a session, so that the browser does not keep the key."""

from __future__ import annotations

import re

import structlog
from flask import make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from rockiln.api.services import services
from rockiln.api.sessions import cookie, forget_cookie, keep_cookie
from rockiln.api.views.web.pages import blueprint, read_form

log = structlog.get_logger("rockiln.api")

# A page of ours, never an address elsewhere.
_OWN_PAGE = re.compile(r"/ui/[^\\\s]{0,500}")


@blueprint.get("/ui/sign-in")
def sign_in_page() -> Response:
    wanted = request.args.get("next", "")
    if not services().settings.key_required:
        return _go_on(wanted)
    return make_response(render_template("sign_in.html", wanted=wanted))


@blueprint.post("/ui/sign-in")
def sign_in() -> Response:
    sent = read_form({"key", "next"})
    token, wanted = str(sent.get("key", "")).strip(), str(sent.get("next", ""))
    held = services()
    if not held.settings.key_required:
        return _go_on(wanted)
    key = held.store.keys.find(token)
    if key is None:
        log.warning("session.refused", reason="the key is not known, or revoked")
        page = render_template("sign_in.html", wanted=wanted, refused=True)
        response = make_response(page, 401)
        response.headers["WWW-Authenticate"] = 'Bearer realm="rockiln"'
        return response
    _close_session()
    seconds = held.settings.session_seconds
    keep_cookie(held.store.sessions.open(key, seconds=seconds), seconds=seconds)
    log.info("session.opened", key=key.id)
    return _go_on(wanted)


@blueprint.post("/ui/sign-out")
def sign_out() -> Response:
    read_form()
    _close_session()
    forget_cookie()
    return redirect(url_for("web.sign_in_page"), code=303)


def _close_session() -> None:
    if (token := cookie()) is not None:
        services().store.sessions.close(token)


def _go_on(wanted: str) -> Response:
    """To the page that was asked for."""
    target = wanted if _OWN_PAGE.fullmatch(wanted) else url_for("web.home")
    return redirect(target, code=303)
