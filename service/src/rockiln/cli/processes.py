"""The two processes of the service, and the store they share."""

# ruff: noqa: PLC0415 (imports wait until they are needed: probes must start fast)

from __future__ import annotations

import os
from contextlib import closing

import structlog
import typer

from rockiln.cli.configuration import load_settings
from rockiln.cli.exit_codes import FAILED
from rockiln.settings import Settings
from rockiln.telemetry.logs import configure_logging

log = structlog.get_logger("rockiln.cli")


def run_api() -> None:
    """Prepares the store, then becomes gunicorn: its master gets every signal itself."""
    from rockiln.api.server import gunicorn_command

    settings = _configured()
    _prepare(settings)
    _refuse_open_door(settings)
    command = gunicorn_command(settings)
    log.info("api.started", bind=settings.api_bind, published=settings.published_address)
    os.execvp(command[0], command)  # noqa: S606 (no shell is wanted)


def run_worker() -> int:
    """Supervises the engine until told to stop."""
    from rockiln.store.schema import StoreRefusedError
    from rockiln.worker.supervisor import run

    try:
        return run(_configured())
    except StoreRefusedError as error:
        log.error("store.refused", reason=str(error))
        return FAILED


def run_fetcher() -> int:
    """Downloads what the store asks for until told to stop."""
    from rockiln.fetcher.process import AnotherFetcherError, Fetcher
    from rockiln.store.schema import StoreRefusedError
    from rockiln.store.store import Store

    settings = _configured()
    try:
        with closing(Store(settings)) as store:
            store.prepare()
            Fetcher(settings, store).run()
    except (StoreRefusedError, AnotherFetcherError, OSError) as error:
        log.error("fetcher.refused", reason=str(error))
        return FAILED
    return 0


def migrate_store() -> None:
    """Brings the store to this version."""
    settings = _configured()
    shown = _prepare(settings)
    log.info("store.migrated", url=shown)


def _configured() -> Settings:
    settings = load_settings()
    configure_logging(settings.log_level)
    return settings


def _refuse_open_door(settings: Settings) -> None:
    """Off loopback somebody must have a key before the first call comes."""
    from rockiln.store.store import Store

    with closing(Store(settings)) as store:
        if not settings.key_required or store.keys.count():
            return
    log.error(
        "keys.missing",
        reason=f"{settings.open_address} is not loopback, and there is no key",
        next="rockiln keys create NAME, or publish on 127.0.0.1",
    )
    raise typer.Exit(FAILED)


def _prepare(settings: Settings) -> str:
    """Returns the address of the store, fit to be shown."""
    from rockiln.store.schema import StoreRefusedError
    from rockiln.store.store import Store

    try:
        with closing(Store(settings)) as store:
            store.prepare()
            return store.database.shown
    except StoreRefusedError as error:
        log.error("store.refused", reason=str(error))
        raise typer.Exit(FAILED) from error
