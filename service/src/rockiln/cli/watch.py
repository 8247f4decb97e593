"""A job on its way to its end: by its events, by looking where there are none; as a bar."""

# ruff: noqa: PLC0415 (imports wait until they are needed: probes must start fast)

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Protocol

from rockiln.cli import exit_codes
from rockiln.cli.calls import CommandEndError, Document, accepted
from rockiln.cli.client import Client, UnreachableError
from rockiln.cli.event_stream import EventStream

FINAL_STATES = frozenset({"done", "failed", "cancelled"})
# A broken connection does not lose the job; it is asked for again for this long.
_LOST_SECONDS = 30.0


class Show(Protocol):
    """Shows how far a job is, and the seconds that its steps still take, where known."""

    def __call__(self, job: Document, eta_seconds: float | None) -> None: ...


def follow(client: Client, job: Document) -> Document:
    """The job once it has ended, with a bar on a terminal until then.

    Raises:
        CommandEndError: the job is not there any more.
        UnreachableError: nobody answered for long.
    """
    found_at = time.monotonic()
    with progress_bar() as show, closing(EventStream(client.url, job)) as events:
        show(job, None)
        while job["state"] not in FINAL_STATES:
            told = events.wait()
            if told and all(event["kind"] in {"step", "preview"} for event in told):
                job, eta_seconds = _stepped(job, told)
                show(job, eta_seconds)
                continue
            try:
                job = accepted(client.call("GET", job["href"]))
                found_at = time.monotonic()
            except UnreachableError:
                if time.monotonic() - found_at > _LOST_SECONDS:
                    raise
            show(job, None)
    return job


def raise_for_failure(job: Document) -> None:
    """Raises CommandEndError unless the job is done."""
    if job["state"] == "cancelled":
        raise CommandEndError(exit_codes.JOB_CANCELLED, f"job {job['id']} was cancelled")
    if job["state"] == "failed":
        failure = job["failure"]
        raise CommandEndError(
            exit_codes.JOB_FAILED,
            f"job {job['id']} failed: {failure['reason']}: {failure['detail']}\n"
            f"next: read {failure['type']} on the service",
        )


def state_of(job: Document) -> str:
    """The job's state in words, with its place while it waits."""
    words = str(job["state"]).replace("_", " ")
    place = job.get("queue")
    if not place:
        return words
    ahead = f", about {place['eta_seconds']:.0f} s" if place["eta_seconds"] else ""
    return f"{words}, place {place['position']}{ahead}"


def _stepped(job: Document, told: list[Document]) -> tuple[Document, float | None]:
    """The job after these steps, and the seconds left after the last of them."""
    steps = {picture["index"]: picture["step"] for picture in job["pictures"]}
    eta_seconds = None
    for event in told:
        if event["kind"] == "step":
            steps[event["payload"]["index"]] = event["payload"]["step"]
            eta_seconds = event.get("eta_seconds")
    pictures = [{**each, "step": steps[each["index"]]} for each in job["pictures"]]
    progress = {**job["progress"], "steps_done": sum(steps.values())}
    stepped = {**job, "state": "denoising", "queue": None}
    return {**stepped, "pictures": pictures, "progress": progress}, eta_seconds


@contextmanager
def progress_bar() -> Iterator[Show]:
    """A bar on a terminal, nothing elsewhere. rich honours NO_COLOR."""
    if not sys.stderr.isatty():
        yield lambda _job, _eta: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("sent", told="")

        def show(job: Document, eta_seconds: float | None) -> None:
            progress = job["progress"]
            done, total = progress["steps_done"], progress["steps_total"]
            left = "" if eta_seconds is None else f", {eta_seconds:.0f} s left"
            bars.update(
                task,
                description=state_of(job),
                told=f"step {done}/{total}{left}" if done else "",
                completed=done,
                total=total,
            )

        yield show
