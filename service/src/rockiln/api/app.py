"""The composition root of the HTTP front."""

from __future__ import annotations

import functools
import gc
from pathlib import Path

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

import rockiln.web
from rockiln.api.access import init_access
from rockiln.api.error_handlers import init_error_handlers
from rockiln.api.estimates import Estimator
from rockiln.api.guards import init_guards
from rockiln.api.model_list import ModelList
from rockiln.api.openapi import build_document
from rockiln.api.request_log import init_request_log
from rockiln.api.services import EXTENSION, Services
from rockiln.api.sessions import init_sessions
from rockiln.api.streams import Streams
from rockiln.api.views import (
    a1111,
    controlnets,
    docs,
    generate,
    health,
    jobs,
    measurements,
    models,
    older,
    openai,
    queue,
    system,
    web,
)
from rockiln.api.waiting import WaitingRoom
from rockiln.registry import Catalogue
from rockiln.settings import Settings
from rockiln.store.store import Store
from rockiln.telemetry.logs import configure_logging
from rockiln.telemetry.metrics import Metrics
from rockiln.telemetry.store_metrics import StoreMetrics

_WEB_DIR = Path(rockiln.web.__file__).parent


def create_app(
    settings: Settings, *, store: Store | None = None, catalogue: Catalogue | None = None
) -> Flask:
    """The app. The store must have been prepared (``Store.prepare``) before the first request."""
    app = Flask(
        "rockiln",
        template_folder=str(_WEB_DIR / "templates"),
        static_folder=str(_WEB_DIR / "static"),
        static_url_path="/ui/static",
    )
    # The proxy says how it was spoken to: addresses that are told begin with https where they must.
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=0, x_host=0)  # type: ignore[method-assign]
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.config["MAX_FORM_MEMORY_SIZE"] = settings.max_body_bytes
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True

    store = Store(settings) if store is None else store
    metrics = Metrics()
    app.extensions[EXTENSION] = Services(
        settings=settings,
        store=store,
        models=ModelList(
            settings.model_dirs,
            catalogue,
            hub_cache=settings.hub_cache_dir,
            quantisation_allowed=settings.quantisation_allowed,
        ),
        waiting_room=WaitingRoom(store, slots=settings.waiting_slots),
        streams=Streams(
            store,
            slots=settings.stream_slots,
            heartbeat_seconds=settings.stream_heartbeat_seconds,
        ),
        metrics=metrics,
        estimator=Estimator(store.jobs),
        document=functools.cache(functools.partial(build_document, app)),
    )
    metrics.add(StoreMetrics(settings, store))

    init_request_log(app, metrics)  # first: it counts the time of all that follows
    init_guards(app, settings)
    init_sessions(app)
    init_access(app, settings)
    init_error_handlers(app)
    for module in (
        generate,
        jobs,
        queue,
        models,
        controlnets,
        system,
        health,
        measurements,
        docs,
        openai,
        a1111,
        older,
        web,
    ):
        app.register_blueprint(module.blueprint)
    return app


def create_served_app() -> Flask:
    """The app of a gunicorn worker: settings from the environment, logs as JSON."""
    settings = Settings()
    configure_logging(settings.log_level)
    app = create_app(settings)
    held: Services = app.extensions[EXTENSION]
    held.document()  # made before seventy clients ask for it together
    gc.freeze()  # what is there by now stays: no call waits for a collection that looks at it
    return app
