#!/usr/bin/env python3
"""Kills upgrades after chosen tasks and lets the next run go on from what is there.

    interrupt.py --commit HASH       five places of the hash's choice, each further than the last
    interrupt.py --each 1-           every place by itself; 17-40: those, to go on from another day

Runs on the host. After every kill the service must still answer; in the end the host must be what
an upgrade that nobody killed makes of it, and one more run must change nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

LOG = Path("/tmp/rockiln-upgrade-tasks.log")  # noqa: S108 (a test host)
FACTS = Path("/etc/rockiln/public/host.json")
POINTER = Path("/etc/rockiln/state/pointer.json")
PLACES = 5
KILLED = -9


class InterruptError(Exception):
    """A host that did not converge."""


def play(playbook: str, options: list[str], *, after: int = 0) -> tuple[int, str]:
    """One run in a process group of its own."""
    LOG.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "ANSIBLE_CALLBACK_PLUGINS": "molecule/shared/callback",
        "ANSIBLE_CALLBACKS_ENABLED": "interrupt",
        "ROCKILN_INTERRUPT_AFTER": str(after),
        "ROCKILN_TASK_LOG": str(LOG),
    }
    path = f"ansible/playbooks/{playbook}.yml"
    done = subprocess.run(
        [".venv/bin/ansible-playbook", "-i", "inventories/local", path, *options],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        start_new_session=True,
    )
    return done.returncode, done.stdout


def must(playbook: str, options: list[str]) -> str:
    code, said = play(playbook, options)
    if code != 0:
        raise InterruptError(f"{playbook} ended with {code}:\n{said[-6000:]}")
    return said


def check_alive(place: str) -> None:
    with urllib.request.urlopen("http://127.0.0.1:8000/livez", timeout=10) as answer:
        if answer.status != 200:  # noqa: PLR2004
            raise InterruptError(f"killed {place}: the service answers {answer.status}")


def check_converged(release: str) -> None:
    facts = json.loads(FACTS.read_text(encoding="utf-8"))
    pointer = json.loads(POINTER.read_text(encoding="utf-8"))
    names = subprocess.run(
        ["docker", "ps", "--all", "--format", "{{.Names}} {{.Image}}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    running = dict(line.split() for line in names if line)
    wanted = {f"rockiln-{part}": image["tag"] for part, image in facts["images"].items()}
    if facts["release"] != release or pointer["upgrade"] is not None or running != wanted:
        raise InterruptError(f"not converged to {release}: {facts['release']} {pointer} {running}")


def kill_after(place: int, options: list[str]) -> str:
    """Kill one run; what it was doing. Empty when the run was over before."""
    code, said = play("upgrade", options, after=place)
    if code == 0:
        return ""
    if code != KILLED:
        raise InterruptError(f"the run to be killed ended with {code} by itself:\n{said[-6000:]}")
    task = LOG.read_text(encoding="utf-8").splitlines()[-1]
    check_alive(f"after {task}")
    return task


def say(words: str) -> None:
    print(words, flush=True)  # noqa: T201


def five(commit: str, release: str, options: list[str], places: int) -> None:
    """Each run goes on from where the one before was killed."""
    chosen = sorted(random.Random(commit).sample(range(1, places), PLACES))  # noqa: S311
    for place in chosen:
        started = time.monotonic()
        task = kill_after(place, options)
        say(f"killed after {task or f'{place}: it was over'} ({time.monotonic() - started:.0f} s)")
    must("upgrade", options)
    check_converged(release)


def each(places: str, first: str, second: str, options: list[str]) -> None:
    """There and back, so that every kill meets an upgrade that has everything to do."""
    here, there = first, second
    begin, dash, end = places.partition("-")
    for place in range(int(begin), int(end or (sys.maxsize if dash else begin)) + 1):
        chosen = [*options, "-e", f"rocm_catalogue_release={there}"]
        task = kill_after(place, chosen)
        must("upgrade", chosen)
        check_converged(there)
        here, there = there, here
        if not task:
            say(f"an upgrade has {place - 1} places")
            break
        say(f"killed after {task}: converged to {here}")
    if here != second:
        must("upgrade", [*options, "-e", f"rocm_catalogue_release={second}"])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--commit", default="", help="chooses five places")
    parser.add_argument("--each", default="", help="the places that are taken one by one")
    parser.add_argument("--release", required=True, help="the release to upgrade to")
    parser.add_argument("--from-release", required=True, help="the release that runs")
    parser.add_argument("--places", type=int, required=True, help="tasks of a whole upgrade")
    parser.add_argument("options", nargs="*", help="for ansible-playbook, after --")
    arguments = parser.parse_args()
    options = [*arguments.options, "-e", f"rocm_catalogue_release={arguments.release}"]
    try:
        if arguments.each:
            each(arguments.each, arguments.from_release, arguments.release, arguments.options)
            return 0
        five(arguments.commit, arguments.release, options, arguments.places)
        recap = must("upgrade", options)
        if not re.search(r"localhost +: ok=\d+ +changed=0 ", recap):
            raise InterruptError(f"one more run changed something:\n{recap[-3000:]}")
    except InterruptError as error:
        say(str(error))
        return 1
    say("converged; one more run changed nothing")
    return 0


if __name__ == "__main__":
    sys.exit(main())
