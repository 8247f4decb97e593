"""``rockiln models``: what there is, and getting, checking and removing it, over HTTP."""

# ruff: noqa: PLC0415 (imports wait until they are needed: probes must start fast)

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import quote

from rockiln.cli import exit_codes
from rockiln.cli.calls import CommandEndError, Document, accepted, run_calls
from rockiln.cli.client import Client, UnreachableError

_POLL_SECONDS = 0.5
_LOST_POLLS = 20


def run_list(url: str, *, json_output: bool) -> int:
    """A line for each model; returns the exit code."""

    def work(client: Client) -> None:
        models = accepted(client.call("GET", "/models"))["models"]
        if json_output:
            print(json.dumps(models))
            return
        width = max((len(each["id"]) for each in models), default=0)
        for each in models:
            print(f"{each['id']:<{width}}  {each['state']:<12}  {_size(each):>9}  {_fit(each)}")

    return run_calls(url, work)


def run_show(url: str, model_id: str, *, json_output: bool) -> int:
    """All that is known of a model; returns the exit code."""

    def work(client: Client) -> None:
        document = accepted(client.call("GET", _path(model_id)))
        if json_output:
            print(json.dumps(document))
            return
        for name, value in document.items():
            if value not in (None, [], {}, False):
                shown = value if isinstance(value, str | int) else json.dumps(value)
                print(f"{name}: {shown}")

    return run_calls(url, work)


def run_pull(url: str, model_id: str, *, accept_licence: bool, json_output: bool) -> int:
    """Downloads a model and waits for it; returns the exit code."""

    def work(client: Client) -> None:
        body = {"accept_licence": True} if accept_licence else {}
        document = accepted(client.call("POST", f"{_path(model_id)}/pull", body=body))
        try:
            document = _follow(client, document)
        except KeyboardInterrupt:
            client.call("DELETE", f"{_path(model_id)}/pull")
            raise CommandEndError(
                exit_codes.INTERRUPTED, "interrupted; the download is cancelled"
            ) from None
        _tell(document, json_output=json_output)

    return run_calls(url, work)


def run_task(url: str, model_id: str, verb: str, *, json_output: bool) -> int:
    """``verify`` or ``rm``, until it is done; returns the exit code."""

    def work(client: Client) -> None:
        method, path = ("DELETE", "") if verb == "rm" else ("POST", f"/{verb}")
        document = accepted(client.call(method, _path(model_id) + path))
        _tell(_follow(client, document), json_output=json_output)

    return run_calls(url, work)


def _follow(client: Client, document: Document) -> Document:
    """The model once its task has ended. A broken connection does not end it."""
    lost, model_id = 0, document["id"]
    with _progress() as show:
        while document["task"]["state"] in {"asked", "running"}:
            show(document["task"])
            time.sleep(_POLL_SECONDS)
            try:
                reply = client.call("GET", _path(model_id))
                lost = 0
            except UnreachableError:
                lost += 1
                if lost > _LOST_POLLS:
                    raise
                continue
            if reply.status == 404 and document["task"]["kind"] == "remove":  # noqa: PLR2004
                return {"id": model_id, "task": {"kind": "remove", "state": "done", "detail": ""}}
            document = accepted(reply)
    return document


def _tell(document: Document, *, json_output: bool) -> None:
    task = document["task"]
    if json_output:
        print(json.dumps(document))
    if task["state"] == "cancelled":
        raise CommandEndError(exit_codes.JOB_CANCELLED, f"the {task['kind']} was cancelled")
    if task["state"] == "failed":
        raise CommandEndError(exit_codes.JOB_FAILED, f"{document['id']}: {task['detail']}")
    if not json_output:
        print(f"{document['id']}: {task['kind']} done. {task['detail']}".rstrip())


def _path(model_id: str) -> str:
    return f"/models/{quote(model_id, safe='')}"


def _size(document: Document) -> str:
    size_bytes = document.get("weights_bytes")
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes else "?"


def _fit(document: Document) -> str:
    """One word a device; nothing where none has reported."""
    return "; ".join(
        f"{fit['worker']}: " + (f"fits ({fit['denoise_rung']})" if fit["fits"] else "too large")
        for fit in document["fits"]
    )


@contextmanager
def _progress() -> Iterator[Callable[[Document], None]]:
    """A bar on a terminal, nothing elsewhere. rich honours NO_COLOR."""
    if not sys.stderr.isatty():
        yield lambda _task: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("asked", total=None)

        def show(task: Document) -> None:
            bars.update(
                bar,
                description=task["detail"] or task["kind"],
                completed=task["bytes_done"],
                total=task["bytes_total"],
            )

        yield show
