"""``rockiln generate``: a job over HTTP, its progress, its pictures as files."""

# ruff: noqa: PLC0415 (imports wait until they are needed: probes must start fast)

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from rockiln.cli import exit_codes
from rockiln.cli.client import AddressError, Client, Reply, UnreachableError

STANDARD_OUTPUT = "-"
FORMAT_BY_SUFFIX = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
_POLL_SECONDS = 0.3
_FINAL_STATES = frozenset({"done", "failed", "cancelled"})
# A broken connection does not lose the job; it is asked for again this often.
_LOST_POLLS = 20


class _CommandEndError(Exception):
    """Ends the command with an exit code and a word to the person."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Progress(Protocol):
    """Shows how far a job is."""

    def __call__(self, job: dict[str, Any]) -> None: ...


def run_generate(url: str, body: dict[str, Any], *, output: str, json_output: bool) -> int:
    """Makes the pictures; returns the exit code."""
    try:
        with Client(url) as client:
            paths, job = _generate(client, body, output=output)
    except _CommandEndError as error:
        print(f"rockiln: {error}", file=sys.stderr)
        return error.code
    except AddressError as error:
        print(f"rockiln: {error}", file=sys.stderr)
        return 2
    except UnreachableError as error:
        print(
            f"rockiln: {error}\nnext: start the service (rockiln serve), or give --url",
            file=sys.stderr,
        )
        return exit_codes.UNREACHABLE
    if json_output:
        print(json.dumps({**job, "files": [str(path) for path in paths]}))
    else:
        for path in paths:
            print(path)
    return 0


def _generate(
    client: Client, body: dict[str, Any], *, output: str
) -> tuple[list[Path], dict[str, Any]]:
    suffix = Path(output).suffix.lower()
    if "format" not in body and suffix in FORMAT_BY_SUFFIX:
        body = {**body, "format": FORMAT_BY_SUFFIX[suffix]}
    if output == STANDARD_OUTPUT and body.get("num_images", 1) != 1:
        raise _CommandEndError(2, "standard output takes one picture; use -o FILE")
    job = _submit(client, body)
    try:
        with progress_bar() as show:
            job = _follow(client, job, show)
    except KeyboardInterrupt:
        client.call("DELETE", job["href"])
        raise _CommandEndError(
            exit_codes.INTERRUPTED, "interrupted; the job is cancelled"
        ) from None
    _raise_for_failure(job)
    return _save(client, job, output), job


def _submit(client: Client, body: dict[str, Any]) -> dict[str, Any]:
    # The key makes it safe to send again when the answer gets lost.
    headers = {"Prefer": "respond-async", "Idempotency-Key": uuid.uuid4().hex}
    reply = client.call("POST", "/generate", body=body, headers=headers)
    return _accepted(reply)


def _accepted(reply: Reply) -> dict[str, Any]:
    if not reply.ok:
        raise _CommandEndError(exit_codes.REFUSED, reply.told())
    return reply.json()


def _follow(client: Client, job: dict[str, Any], show: Progress) -> dict[str, Any]:
    lost = 0
    while job["state"] not in _FINAL_STATES:
        show(job)
        time.sleep(_POLL_SECONDS)
        try:
            job = _accepted(client.call("GET", job["href"]))
            lost = 0
        except UnreachableError:
            lost += 1
            if lost > _LOST_POLLS:
                raise
    show(job)
    return job


def _raise_for_failure(job: dict[str, Any]) -> None:
    if job["state"] == "cancelled":
        raise _CommandEndError(exit_codes.JOB_CANCELLED, f"job {job['id']} was cancelled")
    if job["state"] == "failed":
        failure = job["failure"]
        raise _CommandEndError(
            exit_codes.JOB_FAILED,
            f"job {job['id']} failed: {failure['reason']}: {failure['detail']}\n"
            f"next: read {failure['type']} on the service",
        )


def _save(client: Client, job: dict[str, Any], output: str) -> list[Path]:
    paths = []
    for warning in job["warnings"]:
        print(f"rockiln: warning: {warning}", file=sys.stderr)
    for picture in job["pictures"]:
        reply = client.call("GET", picture["href"], headers={"Accept": "*/*"})
        if not reply.ok:
            raise _CommandEndError(exit_codes.JOB_FAILED, reply.told())
        if output == STANDARD_OUTPUT:
            sys.stdout.buffer.write(reply.body)
            continue
        path = output_path(output, picture, count=len(job["pictures"]))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(reply.body)
        except OSError as error:
            raise _CommandEndError(
                exit_codes.FAILED, f"{path} cannot be written: {error.strerror}; the picture is "
                f"still at {client.url}{picture['href']}",
            ) from error  # fmt: skip
        paths.append(path)
    return paths


def output_path(template: str, picture: dict[str, Any], *, count: int) -> Path:
    """The file of one picture. Several pictures never share a name."""
    index = picture["index"]
    path = Path(template.replace("{seed}", str(picture["seed"])).replace("{index}", str(index)))
    if count > 1 and "{index}" not in template and "{seed}" not in template:
        path = path.with_stem(f"{path.stem}-{index}")
    return path


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on a terminal, nothing elsewhere. rich honours NO_COLOR."""
    if not sys.stderr.isatty():
        yield lambda _job: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("sent")

        def show(job: dict[str, Any]) -> None:
            progress = job["progress"]
            bars.update(
                task,
                description=job["state"].replace("_", " "),
                completed=progress["steps_done"],
                total=progress["steps_total"],
            )

        yield show
