"""``rockiln serve``: api, worker and fetcher as plain processes under one foreground command."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
from contextlib import closing
from pathlib import Path
from typing import IO, Any

import typer

from rockiln.cli.client import Client, UnreachableError
from rockiln.cli.configuration import load_settings
from rockiln.cli.exit_codes import FAILED
from rockiln.cli.process_group import ProcessGroup
from rockiln.settings import HUB_SECRETS, Settings, split_address
from rockiln.store.store import Store
from rockiln.telemetry.logs import configure_logging

_PROBE_SECONDS = 1.0
_OPTIONS = {"published_address": "--listen", "api_bind": "--listen"}


def run_serve(*, listen: str | None, data_dir: Path | None, models_dir: Path | None) -> int:
    """Runs until SIGINT, SIGTERM or SIGHUP. 0 stopped as asked, 1 refused to start."""
    settings = serve_settings(listen=listen, data_dir=data_dir, models_dir=models_dir)
    configure_logging(settings.log_level)
    lock = _lock(settings)
    _refuse_without_key(settings)
    _refuse_port_in_use(settings.api_bind)
    environment = settings.as_environment()
    url = f"http://{settings.published_address}"
    print(f"rockiln starts; jobs and pictures are in {settings.data_dir}", file=sys.stderr)
    with lock, Client(url, timeout_seconds=_PROBE_SECONDS) as client:
        names = ("api", "worker", *(["fetcher"] if settings.fetcher_enabled else []))
        group = ProcessGroup(
            {name: [sys.executable, "-m", "rockiln", name] for name in names},
            {name: _environment(name, environment) for name in names},
        )
        group.run(each_second=_Announcement(client, url))
    return 0


def serve_settings(
    *, listen: str | None, data_dir: Path | None, models_dir: Path | None
) -> Settings:
    """The settings with the options over them, checked before anything starts."""
    given: dict[str, Any] = {}
    if listen is not None:
        given |= {"published_address": listen, "api_bind": listen}
    if models_dir is not None:
        given["bundled_models_dir"] = models_dir.absolute()
    settings = load_settings(given, options=_OPTIONS if listen is not None else None)
    chosen = data_dir if data_dir is not None else default_data_dir(settings)
    return settings.model_copy(update={"data_dir": chosen.absolute()})


def default_data_dir(settings: Settings) -> Path:
    """The folder that was set, root's default, else the user's own data folder."""
    if "data_dir" in settings.model_fields_set or os.geteuid() == 0:
        return settings.data_dir
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "rockiln"


def _lock(settings: Settings) -> IO[str]:
    """One ``serve`` for one data folder. The lock is the kernel's, so none is ever left over."""
    try:
        settings.store_dir.mkdir(parents=True, exist_ok=True)
        lock = (settings.store_dir / "serve.lock").open("w")
    except OSError as error:
        raise _refusal(
            f"{settings.store_dir} cannot be written: {error.strerror}",
            "give a folder of yours with --data-dir",
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise _refusal(
            f"another rockiln serve uses {settings.data_dir}",
            "stop it, or give another folder with --data-dir",
        ) from error
    return lock


def _environment(name: str, everything: dict[str, str]) -> dict[str, str]:
    """The hub's token is the fetcher's alone."""
    if name == "fetcher":
        return everything
    return {key: value for key, value in everything.items() if key not in HUB_SECRETS}


def _refuse_without_key(settings: Settings) -> None:
    """Off loopback somebody must have a key before the first call comes."""
    if not settings.key_required:
        return
    with closing(Store(settings)) as store:
        store.prepare()
        if store.keys.count():
            return
    listened = settings.open_address == settings.published_address
    source = "--listen" if listened else "ROCKILN_TLS_ADDRESS"
    raise _refusal(
        f"{source}: {settings.open_address} is not loopback, and there is no key",
        f"make one with ROCKILN_DATA_DIR={settings.data_dir} rockiln keys create NAME, or listen "
        "on 127.0.0.1",
    )


def _refuse_port_in_use(address: str) -> None:
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gunicorn does
        try:
            probe.bind((host, port))
        except OSError as error:
            raise _refusal(
                f"{address} cannot be used: {error.strerror}",
                f"stop what listens there (ss -ltnp 'sport = :{port}'), or use --listen with "
                "another port",
            ) from error


def _refusal(reason: str, next_step: str) -> typer.Exit:
    print(f"rockiln: {reason}\nnext: {next_step}", file=sys.stderr)
    return typer.Exit(FAILED)


class _Announcement:
    """Tells once that the service is ready, and where."""

    def __init__(self, client: Client, url: str) -> None:
        self._client = client
        self._url = url
        self._made = False

    def __call__(self) -> None:
        if self._made:
            return
        try:
            self._made = self._client.call("GET", "/readyz").ok
        except UnreachableError:
            return
        if self._made:
            print(f"rockiln is ready: {self._url}/ui/  (stop with Ctrl-C)", file=sys.stderr)
