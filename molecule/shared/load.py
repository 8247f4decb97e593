#!/usr/bin/env python3
"""Requests at a steady pace while something is done to the host, counted by class of answer.

    load.py --until FILE --result FILE    starts; ends when the first file is there

Every eighth request submits a small job with a key of its own; the others read. After the end every
accepted job is followed to its own end: one that does not end as ``done`` is lost. Prints one line.
Standard library only: it runs on the host that is worked on.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

READS = ("/system", "/models", "/livez")
JOB = {"prompt": "a red boat", "num_inference_steps": 1, "width": 128, "height": 128}
JOB_EVERY = 8
REQUEST_SECONDS = 60.0
END_SECONDS = 600.0
# What nginx answers by itself; often enough to see a proxy that is replaced within a second.
PROXY, PROXY_EVERY_SECONDS = "/__proxy", 0.05


@dataclass
class Tally:
    """What came back. Refused: no connection, or one that ended without an answer."""

    classes: Counter[str] = field(default_factory=Counter)
    jobs: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, name: str, path: str, seconds: float, job: str = "") -> None:
        with self.lock:
            self.classes[name] += 1
            self.slowest_seconds = max(self.slowest_seconds, seconds)
            if job:
                self.jobs.append(job)
            if name in {"4xx", "5xx", "refused"}:
                self.bad.append(f"{time.strftime('%H:%M:%S')} {name} {path}")


def ask(url: str, body: dict[str, Any] | None = None) -> tuple[int, bytes]:
    headers = {"Accept": "application/json"}
    if body is not None:
        headers |= {
            "Content-Type": "application/json",
            "Prefer": "respond-async",
            "Idempotency-Key": str(uuid.uuid4()),
        }
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers)  # noqa: S310 (http, ours)
    try:
        with urllib.request.urlopen(request, timeout=REQUEST_SECONDS) as answer:  # noqa: S310
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def one(url: str, number: int, tally: Tally) -> None:
    submits = number % JOB_EVERY == 0
    path = "/generate" if submits else READS[number % len(READS)]
    started = time.monotonic()
    try:
        status, body = ask(f"{url}{path}", JOB | {"seed": number} if submits else None)
    except OSError:
        tally.note("refused", path, time.monotonic() - started)
        return
    job = json.loads(body)["href"] if submits and status == 202 else ""  # noqa: PLR2004
    tally.note(f"{status // 100}xx", path, time.monotonic() - started, job)


def run(url: str, *, rate: float, until: Path, tally: Tally) -> None:
    """Start requests on time whatever the ones before do."""
    threads, number, started = [], 0, time.monotonic()
    while not until.exists():
        thread = threading.Thread(target=one, args=(url, number, tally))
        thread.start()
        threads.append(thread)
        number += 1
        time.sleep(max(0.0, started + number / rate - time.monotonic()))
    for thread in threads:
        thread.join()


def gaps(url: str, *, until: Path) -> list[tuple[float, float]]:
    """From one answer of the proxy to the next, where a refusal is between; since the epoch."""
    found, answered_at, refused = [], time.time(), False
    while not until.exists():
        try:
            ask(f"{url}{PROXY}")
        except OSError:
            refused = True
        else:
            now = time.time()
            if refused:
                found.append((answered_at, now))
            answered_at, refused = now, False
        time.sleep(PROXY_EVERY_SECONDS)
    return found


def not_done(url: str, jobs: list[str], *, seconds: float) -> list[str]:
    """Jobs that were accepted and do not end as ``done``. One at a time: they end in this order."""
    deadline, lost = time.monotonic() + seconds, []
    for job in jobs:
        state = "waiting"
        while state not in {"done", "failed", "cancelled"} and time.monotonic() < deadline:
            status, body = ask(f"{url}{job}")
            state = json.loads(body)["state"] if status == 200 else "failed"  # noqa: PLR2004
            time.sleep(0 if state == "done" else 0.5)
        if state != "done":
            lost.append(f"{job} {state}")
    return lost


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--rate", type=float, default=2.0, help="requests a second")
    parser.add_argument("--until", type=Path, required=True, help="ends when this file is there")
    parser.add_argument("--result", type=Path, required=True, help="the counts, as JSON")
    arguments = parser.parse_args()
    tally, started = Tally(), time.monotonic()
    with ThreadPoolExecutor() as pool:
        watch = pool.submit(gaps, arguments.url, until=arguments.until)
        run(arguments.url, rate=arguments.rate, until=arguments.until, tally=tally)
    seconds, refusing = time.monotonic() - started, watch.result()
    lost = not_done(arguments.url, tally.jobs, seconds=END_SECONDS)
    counts = {
        "requests": sum(tally.classes.values()),
        **{name: tally.classes[name] for name in ("2xx", "4xx", "5xx", "refused")},
        "refused_seconds": round(sum(end - begin for begin, end in refusing), 2),
        "jobs": len(tally.jobs),
        "lost": len(lost),
        "seconds": round(seconds, 1),
        "slowest_seconds": round(tally.slowest_seconds, 2),
    }
    arguments.result.write_text(
        json.dumps({**counts, "gaps": refusing, "bad": tally.bad, "lost_jobs": lost}, indent=1)
        + "\n",
        encoding="utf-8",
    )
    print(" ".join(f"{name}={value}" for name, value in counts.items()))  # noqa: T201
    return int(bool(lost) or counts["5xx"] > 0)


if __name__ == "__main__":
    sys.exit(main())
