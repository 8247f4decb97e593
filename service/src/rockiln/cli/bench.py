"""``rockiln bench``: what each scheduler and size takes on the user's own card.

Nothing is timed here: jobs are made over HTTP, and the figures are those that the service records
of every job (seconds per stage, peak of memory).
"""

# ruff: noqa: PLC0415 (imports wait until they are needed: probes must start fast)

from __future__ import annotations

import os
import re
import shlex
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rockiln.cli import exit_codes
from rockiln.cli.bench_report import BenchReport, Case, Device, Model, Run
from rockiln.cli.client import AddressError, Client, Reply, UnreachableError
from rockiln.domain.model import DeviceFacts
from rockiln.domain.request import STEPS_MAX
from rockiln.domain.sampling import STEPS_LIMITS, scheduler_named

PROMPT = "a lighthouse on a cliff above the sea, evening light"
SEED = 0
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
_POLL_SECONDS = 0.1
_LOST_POLLS = 50
_FINAL_STATES = frozenset({"done", "failed", "cancelled"})
# A size that the model, or every device, is too small for; the others are measured all the same.
_UNFIT = frozenset({400, 422})
Document = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """The command line, read.

    Attributes:
        sizes, schedulers: empty for the model's own.
    """

    model: str | None
    sizes: list[tuple[int, int]]
    steps: list[int]
    schedulers: list[str]
    runs: int


class UsageError(ValueError):
    """The command line is wrong."""


class _CommandEndError(Exception):
    """Ends the command with an exit code and a word to the person."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def read_wanted(
    model: str | None, *, sizes: str | None, steps: str, schedulers: str | None, runs: int
) -> Wanted:
    """Raises UsageError."""
    wanted = Wanted(
        model=model,
        sizes=[_size(word) for word in _words(sizes)],
        steps=[_steps(word) for word in _words(steps)],
        schedulers=[_scheduler(word) for word in _words(schedulers)],
        runs=runs,
    )
    if not wanted.steps:
        raise UsageError("--steps names none")
    return wanted


def run_bench(
    url: str,
    wanted: Wanted,
    *,
    command: list[str],
    json_output: bool,
    export: Path | None,
    plot: Path | None,
) -> int:
    """Measures, shows and writes; returns the exit code."""
    for path in (export, plot):
        if path is not None and not os.access(path.parent, os.W_OK):
            return _say(exit_codes.USAGE, f"{path.parent} is no folder that can be written to")
    if plot is not None and plot.suffix.lower() != ".svg":
        return _say(exit_codes.USAGE, f"{plot} does not end in .svg, which is what is drawn")
    measurement = _Measurement(wanted, shlex.join(["rockiln", *command]))
    code = _measured(url, measurement)
    report = measurement.report()
    if report is None:
        return code
    if json_output:
        print(report.model_dump_json(indent=2))
    else:
        from rockiln.cli.bench_table import print_table

        print_table(report)
    written = _written(report, export, plot)
    return code or written or measurement.code


def _measured(url: str, measurement: _Measurement) -> int:
    """0 once it is through; what was measured before a trouble is kept."""
    try:
        with Client(url) as client:
            measurement.run(client)
    except AddressError as error:
        return _say(exit_codes.USAGE, str(error))
    except UnreachableError as error:
        next_step = "next: start the service (rockiln serve), or give --url"
        return _say(exit_codes.UNREACHABLE, f"{error}\n{next_step}")
    except _CommandEndError as error:
        return _say(error.code, str(error))
    return 0


def _written(report: BenchReport, export: Path | None, plot: Path | None) -> int:
    try:
        if export is not None:
            export.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
        if plot is not None:
            from rockiln.cli.bench_plot import as_svg

            plot.write_text(as_svg(report), encoding="utf-8")
    except OSError as error:
        return _say(exit_codes.FAILED, f"{error.filename}: {error.strerror}")
    return 0


class _Measurement:
    """The cases of one command, those that are done kept whatever happens to the next.

    Attributes:
        code: what the command ends with if all goes to its end.
    """

    def __init__(self, wanted: Wanted, command: str) -> None:
        self._wanted = wanted
        self._command = command
        self._cases: list[Case] = []
        self._model: Document = {}
        self._system: Document = {}
        self._made: Document = {}
        self.code = 0

    def run(self, client: Client) -> None:
        """Raises _CommandEndError or UnreachableError; what was measured before is kept."""
        self._model = _find_model(client, self._wanted.model)
        schedulers = self._wanted.schedulers or self._model["schedulers"]
        unknown = [name for name in schedulers if name not in self._model["schedulers"]]
        if unknown:
            raise _CommandEndError(
                exit_codes.REFUSED,
                f"{unknown[0]} does not sample model {self._model['id']}\n"
                f"next: use some of {', '.join(self._model['schedulers'])}",
            )
        defaults = self._model["defaults"]
        sizes = self._wanted.sizes or [(defaults["width"], defaults["height"])]
        self._system = _accepted(client.call("GET", "/system"))
        try:
            with _progress() as show:
                for size in sizes:
                    self._warm(client, size, schedulers[0])
                    for scheduler in schedulers:
                        for steps in self._wanted.steps:
                            if steps <= STEPS_LIMITS.get(scheduler, steps):
                                show(f"{scheduler}, {size[0]}x{size[1]}, {steps} steps")
                                self._measure(client, size, scheduler, steps)
        except KeyboardInterrupt:
            raise _CommandEndError(
                exit_codes.INTERRUPTED, "interrupted; the job at work is cancelled"
            ) from None

    def report(self) -> BenchReport | None:
        """What has been measured; None if nothing has."""
        if not self._cases:
            return None
        made, host = self._made, self._system.get("host") or {}
        model = made.get("model", {})
        return BenchReport(
            made_at=datetime.now(UTC),
            command=self._command,
            devices=[
                _device(worker["name"], DeviceFacts(**worker["device"]))
                for worker in self._system["workers"]
                if worker["working"] and worker["device"] is not None
            ],
            release=host.get("release"),
            versions=made.get("versions", self._system["versions"]),
            model=Model(
                id=self._model["id"],
                family=self._model["family"],
                revision=model.get("revision"),
                dtype=made.get("dtype"),
            ),
            prompt=PROMPT,
            guidance_scale=self._model["defaults"]["guidance_scale"],
            seed=SEED,
            cases=self._cases,
        )

    def _warm(self, client: Client, size: tuple[int, int], scheduler: str) -> None:
        """One picture that does not count: weights come into memory, kernels are compiled."""
        reply = self._submit(client, size, scheduler, min(self._wanted.steps))
        if reply.status not in _UNFIT:  # a size that does not fit is told where it is measured
            job = _follow(client, _accepted(reply))
            client.call("DELETE", f"{job['href']}?purge=true")

    def _measure(self, client: Client, size: tuple[int, int], scheduler: str, steps: int) -> None:
        runs: list[Run] = []
        failure, plan, policies = None, {}, []
        for _ in range(self._wanted.runs):
            reply = self._submit(client, size, scheduler, steps)
            if reply.status in _UNFIT:
                failure, self.code = reply.told(), self.code or exit_codes.REFUSED
                break
            job = _follow(client, _accepted(reply))
            if job["state"] == "failed":
                failure = f"{job['failure']['reason']}: {job['failure']['detail']}"
                self.code = exit_codes.JOB_FAILED
                break
            picture = job["pictures"][0]
            self._made = picture["details"]
            plan, policies = self._made.get("plan", {}), picture["policies"]
            runs.append(Run(seconds=picture["seconds"], peak_bytes=_peak_bytes(client, job)))
            client.call("DELETE", f"{job['href']}?purge=true")
        self._cases.append(
            Case.of(
                scheduler=scheduler,
                size=size,
                steps=steps,
                runs=runs,
                rungs=plan.get("rungs"),
                policies=policies,
                failure=failure,
            )
        )

    def _submit(self, client: Client, size: tuple[int, int], scheduler: str, steps: int) -> Reply:
        body = {
            "prompt": PROMPT,
            "seed": SEED,
            "model": self._model["id"],
            "width": size[0],
            "height": size[1],
            "scheduler": scheduler,
            "num_inference_steps": steps,
        }
        headers = {"Prefer": "respond-async", "Idempotency-Key": uuid.uuid4().hex}
        return client.call("POST", "/generate", body=body, headers=headers)


def _find_model(client: Client, model_id: str | None) -> Document:
    if model_id is None:
        models = _accepted(client.call("GET", "/models"))["models"]
        model_id = next((model["id"] for model in models if model["default"]), None)
        if model_id is None:
            raise _CommandEndError(exit_codes.REFUSED, "the service has no model\nnext: name one")
    model = _accepted(client.call("GET", f"/models/{quote(model_id, safe='')}"))
    if model["state"] != "ready":
        raise _CommandEndError(
            exit_codes.REFUSED,
            f"model {model_id} is {model['state']}: {model['reason'] or 'not on this host'}\n"
            f"next: rockiln models pull {model_id}",
        )
    return model


def _follow(client: Client, job: Document) -> Document:
    """The job once it has ended. A broken connection does not end it; Ctrl-C cancels it."""
    lost = 0
    try:
        while job["state"] not in _FINAL_STATES:
            time.sleep(_POLL_SECONDS)
            try:
                job = _accepted(client.call("GET", job["href"]))
                lost = 0
            except UnreachableError:
                lost += 1
                if lost > _LOST_POLLS:
                    raise
    except KeyboardInterrupt:
        client.call("DELETE", job["href"])
        raise
    if job["state"] == "cancelled":
        raise _CommandEndError(exit_codes.JOB_CANCELLED, f"job {job['id']} was cancelled")
    return job


def _peak_bytes(client: Client, job: Document) -> dict[str, int]:
    """Per stage, from the job's log."""
    address = f"{job['href']}/events"
    while address:
        page = _accepted(client.call("GET", address))
        for event in page["events"]:
            if event["kind"] == "published":
                peaks: dict[str, int] = event["payload"].get("peak_bytes", {})
                return peaks
        address = page["next"]
    return {}


def _accepted(reply: Reply) -> Document:
    if not reply.ok:
        raise _CommandEndError(exit_codes.REFUSED, reply.told())
    return reply.json()


def _device(worker: str, facts: DeviceFacts) -> Device:
    told = {name: value for name, value in vars(facts).items() if name in Device.model_fields}
    return Device(worker=worker, **told)


def _words(said: str | None) -> list[str]:
    return [word.strip() for word in (said or "").split(",") if word.strip()]


def _size(word: str) -> tuple[int, int]:
    match = _SIZE.fullmatch(word)
    if match is None:
        raise UsageError(f"{word!r} is no size; write WIDTHxHEIGHT, such as 512x512")
    return int(match[1]), int(match[2])


def _steps(word: str) -> int:
    if not word.isdecimal() or not 1 <= int(word) <= STEPS_MAX:
        raise UsageError(f"{word!r} is no number of steps from 1 to {STEPS_MAX}")
    return int(word)


def _scheduler(word: str) -> str:
    name = scheduler_named(word)
    if name is None:
        raise UsageError(f"{word!r} is no scheduler; GET /system lists them")
    return name


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """What is being measured, on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _words: None
        return
    from rich.console import Console

    with Console(stderr=True).status("warming up") as status:
        yield status.update


def _say(code: int, message: str) -> int:
    print(f"rockiln: {message}", file=sys.stderr)
    return code
