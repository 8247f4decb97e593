"""gunicorn's configuration file: what cannot be said on its command line."""

# ruff: noqa: PLC0415 (gunicorn's master loads this module and should stay small)

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from gunicorn.glogging import Logger  # type: ignore[import-untyped]
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]

from rockiln.api.gunicorn_worker import kind_of_exception
from rockiln.settings import Settings
from rockiln.telemetry.logs import configure_logging

if TYPE_CHECKING:
    from flask import Response

    from rockiln.api.services import Services


class JsonLogger(Logger):  # type: ignore[misc]
    """Sends what gunicorn says of itself the way of all our events; our app logs the requests."""

    def setup(self, cfg: Any) -> None:  # noqa: ARG002 (gunicorn's signature)
        configure_logging(Settings().log_level)
        self.error_log.handlers.clear()
        self.error_log.propagate = True
        self.error_log.setLevel(logging.NOTSET)
        self.access_log.disabled = True


logger_class = JsonLogger


def _unreadable_body(error: Exception) -> Response:
    from rockiln.api.problems import problem_response

    return problem_response(
        kind_of_exception(error), f"the body cannot be read ({type(error).__name__})"
    )


def post_worker_init(worker: Any) -> None:
    """A stopping server lets waiting calls go with 202 rather than keep it from ending."""
    from rockiln.api.services import EXTENSION

    # A body that is torn or wrongly chunked is noticed only when a view reads it.
    worker.wsgi.register_error_handler(ParseException, _unreadable_body)
    held: Services = worker.wsgi.extensions[EXTENSION]
    held.waiting_room.release_when(lambda: not worker.alive)
    held.streams.end_when(lambda: not worker.alive)


def worker_exit(server: Any, worker: Any) -> None:  # noqa: ARG001 (gunicorn's signature)
    """Takes the wake-up socket off the store folder."""
    from rockiln.api.services import EXTENSION

    app = getattr(worker, "wsgi", None)
    if app is not None:
        held: Services = app.extensions[EXTENSION]
        held.waiting_room.close()
        held.streams.close()
        held.store.close()
