"""``rockiln jobs``: the jobs of the service, over HTTP."""

# ruff: noqa: PLC0415 (imports wait until they are needed: probes must start fast)

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

from rockiln.cli import exit_codes
from rockiln.cli.calls import CommandEndError, Document, accepted, plain, run_calls
from rockiln.cli.client import Client
from rockiln.cli.generate import hand_over, once
from rockiln.cli.watch import FINAL_STATES, follow, raise_for_failure, state_of

_ID_CHARS = 32
_SHOWN_CHARS = 12
_PAGE_MAX = 100
_STYLES = {"done": "green", "failed": "red", "cancelled": "yellow"}


def run_list(url: str, *, state: str | None, limit: int, json_output: bool) -> int:
    """A line for each of the newest jobs; returns the exit code."""

    def work(client: Client) -> None:
        query = {"limit": limit, **({} if state is None else {"state": state})}
        jobs = accepted(client.call("GET", f"/jobs?{urlencode(query)}"))["jobs"]
        if json_output:
            print(json.dumps(jobs))
        else:
            _print_table(jobs)

    return run_calls(url, work)


def run_show(url: str, job_id: str, *, json_output: bool) -> int:
    """What is known of a job; returns the exit code."""

    def work(client: Client) -> None:
        job = find_job(client, job_id)
        if json_output:
            print(json.dumps(job))
            return
        for name, text in _facts(job, client.url):
            print(f"{name:<10}{plain(text)}")

    return run_calls(url, work)


def run_watch(
    url: str, job_id: str, *, output: str | None, cancels: bool, picture: bool, json_output: bool
) -> int:
    """Follows a job to its end; returns the exit code.

    Args:
        output: where its pictures go; None leaves them where they are.
        cancels: whether an interrupt cancels the job.
    """

    def work(client: Client) -> None:
        job = find_job(client, job_id)
        try:
            job = follow(client, job)
        except KeyboardInterrupt:
            if cancels:
                client.call("DELETE", job["href"])
            short = job["id"][:_SHOWN_CHARS]
            end = "is cancelled" if cancels else f"goes on\nnext: rockiln jobs watch {short}"
            raise CommandEndError(exit_codes.INTERRUPTED, f"interrupted; the job {end}") from None
        if json_output and output is None:
            print(json.dumps(job))
        raise_for_failure(job)
        if output is not None:
            hand_over(client, job, output, picture=picture, json_output=json_output)
        elif not json_output:
            for each in job["pictures"]:
                print(f"{client.url}{each['href']}")

    return run_calls(url, work)


def run_cancel(url: str, job_ids: list[str], *, json_output: bool) -> int:
    """Cancels jobs, one after the other; returns the exit code."""

    def work(client: Client) -> None:
        ended = [
            accepted(client.call("DELETE", find_job(client, each)["href"])) for each in job_ids
        ]
        if json_output:
            print(json.dumps(ended))
            return
        for job in ended:
            told = "cancelled" if job["state"] in FINAL_STATES else "ends at its next step"
            print(f"{job['id']} {told}")

    return run_calls(url, work)


def run_retry(url: str, job_id: str, *, json_output: bool) -> int:
    """Sends the same again, as a job of its own; returns the exit code."""

    def work(client: Client) -> None:
        path = f"{find_job(client, job_id)['href']}/retry"
        again = accepted(client.call("POST", path, headers=once()))
        print(json.dumps(again) if json_output else again["id"])

    return run_calls(url, work)


def run_move(url: str, job_id: str, to: str, *, json_output: bool) -> int:
    """Gives a waiting job another place; returns the exit code."""

    def work(client: Client) -> None:
        path = f"{find_job(client, job_id)['href']}/move"
        job = accepted(client.call("POST", path, body={"to": to}))
        print(json.dumps(job) if json_output else f"{job['id']} {state_of(job)}")

    return run_calls(url, work)


def run_rm(url: str, job_id: str) -> int:
    """Deletes a job for good; returns the exit code."""

    def work(client: Client) -> None:
        job = find_job(client, job_id)
        accepted(client.call("DELETE", f"{job['href']}?purge=true"))
        print(f"{job['id']} deleted")

    return run_calls(url, work)


def find_job(client: Client, job_id: str) -> Document:
    """The job of an id, or of the start of one of the newest. Raises CommandEndError."""
    if 0 < len(job_id) < _ID_CHARS:
        newest = accepted(client.call("GET", f"/jobs?limit={_PAGE_MAX}"))["jobs"]
        found = [each["id"] for each in newest if each["id"].startswith(job_id)]
        if len(found) > 1:
            raise CommandEndError(
                exit_codes.REFUSED, f"{len(found)} jobs begin with {job_id}\nnext: write more of it"
            )
        job_id = found[0] if found else job_id
    return accepted(client.call("GET", f"/jobs/{quote(job_id, safe='')}"))


def _facts(job: Document, url: str) -> list[tuple[str, str]]:
    parameters, failure = job["parameters"], job["failure"]
    named = {"prompt": "prompt", "negative": "negative_prompt", "model": "model", "seed": "seed"}
    facts = [("job", job["id"]), ("state", _progress(job))]
    facts += [(name, str(parameters[field])) for name, field in named.items() if parameters[field]]
    facts += [
        ("size", f"{parameters['width']} x {parameters['height']}"),
        ("steps", f"{parameters['num_inference_steps']}, {parameters['scheduler']}"),
        ("accepted", f"{_ago(job['accepted_at'])} ago"),
    ]
    facts += [
        (f"attempt {each['attempt']}", f"{each['reason']}: {each['detail']}")
        for each in job["attempts"] or []
    ]
    if failure:
        facts += [("failed", f"{failure['reason']}: {failure['detail']}")]
        facts += [("next", f"read {url}{failure['type']}")]
    facts += [("warning", each) for each in job["warnings"]]
    return facts + [("picture", f"{url}{each['href']}") for each in job["pictures"] if each["href"]]


def _progress(job: Document) -> str:
    progress, words = job["progress"], state_of(job)
    if job["state"] in FINAL_STATES or not progress["steps_done"]:
        return words
    return f"{words}, step {progress['steps_done']}/{progress['steps_total']}"


def _ago(moment: str) -> str:
    seconds = max(0.0, (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _print_table(jobs: list[Document]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # What reads a pipe gets whole lines.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 1000)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("job", "state", "age", "model"):
        table.add_column(name, no_wrap=True)
    table.add_column("prompt")  # the one that gives way
    for job in jobs:
        prompt = plain(job["parameters"]["prompt"])
        table.add_row(
            job["id"][:_SHOWN_CHARS],
            Text(_progress(job), _STYLES.get(job["state"], "")),
            _ago(job["accepted_at"]),
            job["parameters"]["model"],
            Text(prompt, no_wrap=True, overflow="ellipsis"),
        )
    console.print(table)
