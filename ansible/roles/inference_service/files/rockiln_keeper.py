#!/usr/bin/env python3
"""Brings back a container that was killed from outside.

Docker's restart policies do not act after ``docker kill``: the engine books it as a manual stop.
This watcher tells the two apart by the engine's own events: a ``stop`` event means that somebody
wants it stopped; a ``die`` without one does not. A container that the engine restarts by itself is
left to the engine.

Standard library only, one client process for events, and a short call for each start. Deliberate
stops are remembered in a file, so a keeper that starts again does not start them.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

GRACE_SECONDS = 2.0
BACKOFF_FIRST_SECONDS = 1.0
BACKOFF_MAX_SECONDS = 60.0
CALM_SECONDS = 60.0
EVENTS = ("die", "stop", "start", "destroy")


@dataclass
class Watch:
    """What is known of one container."""

    stopped: bool = False  # somebody stopped it on purpose
    due_monotonic: float | None = None  # when to look at it again
    backoff_seconds: float = BACKOFF_FIRST_SECONDS
    revived_monotonic: float = float("-inf")


@dataclass
class Keeper:
    """The decisions, without a clock and without an engine of its own."""

    watches: dict[str, Watch] = field(default_factory=dict)

    def watch(self, name: str) -> Watch:
        return self.watches.setdefault(name, Watch())

    def note(self, name: str, action: str, now: float) -> None:
        """One event of the engine."""
        watch = self.watch(name)
        if action == "stop":
            watch.stopped, watch.due_monotonic = True, None
        elif action in {"start", "destroy"}:
            watch.stopped, watch.due_monotonic = False, None
        elif action == "die" and not watch.stopped:
            if now - watch.revived_monotonic > CALM_SECONDS:
                watch.backoff_seconds = BACKOFF_FIRST_SECONDS
            watch.due_monotonic = now + max(GRACE_SECONDS, watch.backoff_seconds)

    def due(self, now: float) -> list[str]:
        """Containers whose time of grace is over."""
        names = []
        for name, watch in self.watches.items():
            if watch.due_monotonic is not None and watch.due_monotonic <= now:
                watch.due_monotonic = None
                names.append(name)
        return names

    def revived(self, name: str, now: float) -> None:
        watch = self.watch(name)
        watch.revived_monotonic = now
        watch.backoff_seconds = min(watch.backoff_seconds * 2, BACKOFF_MAX_SECONDS)

    def stopped_names(self) -> list[str]:
        return sorted(name for name, watch in self.watches.items() if watch.stopped)


class EngineClient:
    """The engine's own client program."""

    def __init__(self, path: str) -> None:
        self.path = path

    def call(self, *arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [self.path, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.returncode, (done.stdout or done.stderr).strip()

    def status(self, name: str) -> str:
        """``exited``, ``running``, …; empty when there is no such container."""
        code, output = self.call("container", "inspect", "--format", "{{.State.Status}}", name)
        return output if code == 0 else ""

    def events(self, since: float) -> subprocess.Popen[str]:
        filters = [word for event in EVENTS for word in ("--filter", f"event={event}")]
        filters += ["--filter", "type=container"]
        return subprocess.Popen(
            [self.path, "events", "--since", f"{since:.3f}", "--format", "{{json .}}", *filters],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )


def say(event: str, **details: object) -> None:
    print(  # noqa: T201 (the log)
        json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": event, **details}),
        flush=True,
    )


def read_state(path: Path) -> tuple[float, list[str]]:
    """(when the last event was seen, containers stopped on purpose)."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        return float(state["seen"]), [str(name) for name in state["stopped"]]
    except (OSError, ValueError, KeyError, TypeError):
        return time.time(), []


def write_state(path: Path, seen: float, stopped: list[str]) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"seen": seen, "stopped": stopped}) + "\n", encoding="utf-8")
    temporary.replace(path)


def revive(keeper: Keeper, client: EngineClient, name: str) -> None:
    if client.status(name) != "exited":
        return
    code, output = client.call("start", name)
    keeper.revived(name, time.monotonic())
    if code == 0:
        say("container.revived", name=name)
        return
    say("container.revive_failed", name=name, reason=output)
    keeper.watch(name).due_monotonic = time.monotonic() + keeper.watch(name).backoff_seconds


def follow(keeper: Keeper, client: EngineClient, names: frozenset[str], state: Path) -> None:
    """Read events until the engine goes away."""
    seen, stopped = read_state(state)
    for name in stopped:
        keeper.watch(name).stopped = True
    for name in names:
        if not keeper.watch(name).stopped and client.status(name) == "exited":
            keeper.watch(name).due_monotonic = time.monotonic() + GRACE_SECONDS
    lock = threading.Lock()
    stream = client.events(since=seen)

    def read() -> None:
        if stream.stdout is None:
            return
        for line in stream.stdout:
            event = json.loads(line)
            name = event.get("Actor", {}).get("Attributes", {}).get("name", "")
            if name in names:
                with lock:
                    keeper.note(
                        name, str(event.get("Action") or event.get("status")), time.monotonic()
                    )
                    write_state(state, event["timeNano"] / 1e9, keeper.stopped_names())

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    while reader.is_alive():
        reader.join(timeout=0.25)
        with lock:
            due = keeper.due(time.monotonic())
        for name in due:
            revive(keeper, client, name)
    stream.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--client", required=True, help="the engine's client program")
    parser.add_argument(
        "--state", required=True, type=Path, help="where deliberate stops are remembered"
    )
    parser.add_argument("containers", nargs="+")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    keeper, client = Keeper(), EngineClient(arguments.client)
    say("keeper.started", containers=arguments.containers)
    while True:
        follow(keeper, client, frozenset(arguments.containers), arguments.state)
        say("engine.went_away")
        time.sleep(BACKOFF_FIRST_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
