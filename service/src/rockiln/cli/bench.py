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
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

from rockiln.cli import exit_codes
from rockiln.cli.bench_report import BenchReport, Case, Device, Model, Run
from rockiln.cli.calls import CommandEndError, Document, accepted, run_calls
from rockiln.cli.client import Client, Reply
from rockiln.cli.watch import follow, raise_for_failure
from rockiln.domain.model import DeviceFacts
from rockiln.domain.request import STEPS_MAX
from rockiln.domain.sampling import STEPS_LIMITS, scheduler_named

PROMPT = "a lighthouse on a cliff above the sea, evening light"
SEED = 0
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
# A size that the model, or every device, is too small for; the others are measured all the same.
_UNFIT = frozenset({400, 422})


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
    code = run_calls(url, measurement.run)
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
        self._system: Document = {"workers": [], "versions": {}}
        self._made: Document = {}
        self.code = 0

    def run(self, client: Client) -> None:
        """Raises CommandEndError or UnreachableError; what was measured before is kept."""
        self._model = _find_model(client, self._wanted.model)
        schedulers = self._wanted.schedulers or self._model["schedulers"]
        unknown = [name for name in schedulers if name not in self._model["schedulers"]]
        if unknown:
            raise CommandEndError(
                exit_codes.REFUSED,
                f"{unknown[0]} does not sample model {self._model['id']}\n"
                f"next: use some of {', '.join(self._model['schedulers'])}",
            )
        defaults = self._model["defaults"]
        sizes = self._wanted.sizes or [(defaults["width"], defaults["height"])]
        system = client.call("GET", "/system")
        if system.status == HTTPStatus.FORBIDDEN:
            print(
                "rockiln: only a key with the scope admin sees the devices; the report names none",
                file=sys.stderr,
            )
        else:
            self._system = accepted(system)
        try:
            for size in sizes:
                self._warm(client, size, schedulers[0])
                for scheduler in schedulers:
                    for steps in self._wanted.steps:
                        if steps <= STEPS_LIMITS.get(scheduler, steps):
                            self._measure(client, size, scheduler, steps)
        except KeyboardInterrupt:
            raise CommandEndError(
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
            job = _ended(client, reply)
            client.call("DELETE", f"{job['href']}?purge=true")

    def _measure(self, client: Client, size: tuple[int, int], scheduler: str, steps: int) -> None:
        runs: list[Run] = []
        failure, plan, policies = None, {}, []
        for _ in range(self._wanted.runs):
            reply = self._submit(client, size, scheduler, steps)
            if reply.status in _UNFIT:
                failure, self.code = reply.told(), self.code or exit_codes.REFUSED
                break
            job = _ended(client, reply)
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
        models = accepted(client.call("GET", "/models"))["models"]
        model_id = next((model["id"] for model in models if model["default"]), None)
        if model_id is None:
            raise CommandEndError(exit_codes.REFUSED, "the service has no model\nnext: name one")
    model = accepted(client.call("GET", f"/models/{quote(model_id, safe='')}"))
    if model["state"] != "ready":
        raise CommandEndError(
            exit_codes.REFUSED,
            f"model {model_id} is {model['state']}: {model['reason'] or 'not on this host'}\n"
            f"next: rockiln models pull {model_id}",
        )
    return model


def _ended(client: Client, reply: Reply) -> Document:
    """The job once it is done or has failed; Ctrl-C cancels it."""
    job = accepted(reply)
    try:
        job = follow(client, job)
    except KeyboardInterrupt:
        client.call("DELETE", job["href"])
        raise
    if job["state"] == "cancelled":
        raise_for_failure(job)
    return job


def _peak_bytes(client: Client, job: Document) -> dict[str, int]:
    """Per stage, from the job's log."""
    address = f"{job['href']}/events"
    while address:
        page = accepted(client.call("GET", address))
        for event in page["events"]:
            if event["kind"] == "published":
                peaks: dict[str, int] = event["payload"].get("peak_bytes", {})
                return peaks
        address = page["next"]
    return {}


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


def _say(code: int, message: str) -> int:
    print(f"rockiln: {message}", file=sys.stderr)
    return code
