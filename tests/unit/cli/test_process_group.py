"""Processes that live and die together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest

from rockiln.cli.process_group import (
    BACKOFF_FIRST_SECONDS,
    BACKOFF_MAX_SECONDS,
    HEALTHY_SECONDS,
    next_backoff_seconds,
)
from support.front import SOURCE
from support.service import eventually

pytestmark = pytest.mark.slow

GROUP = """
import sys
from rockiln.cli.process_group import ProcessGroup
commands = {"one": ["sleep", "600"], "two": ["sleep", "601"]}
ProcessGroup(commands, dict.fromkeys(commands, {})).run(each_second=lambda: None)
"""


def test_the_pause_before_a_restart_doubles_to_a_limit_and_begins_anew() -> None:
    pauses, pause = [], 0.0
    for _ in range(9):
        pause = next_backoff_seconds(pause, lived_seconds=1)
        pauses.append(pause)
    assert pauses[:3] == [
        BACKOFF_FIRST_SECONDS,
        2 * BACKOFF_FIRST_SECONDS,
        4 * BACKOFF_FIRST_SECONDS,
    ]
    assert pauses[-1] == BACKOFF_MAX_SECONDS
    assert next_backoff_seconds(pause, lived_seconds=HEALTHY_SECONDS) == BACKOFF_FIRST_SECONDS


def start_group() -> tuple[subprocess.Popen[bytes], psutil.Process]:
    group = subprocess.Popen(
        [sys.executable, "-c", GROUP], env={**os.environ, "PYTHONPATH": str(SOURCE)}
    )
    return group, psutil.Process(group.pid)


def members(group: psutil.Process) -> list[psutil.Process]:
    return [child for child in group.children() if "sleep" in child.name()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_signal_ends_every_member(number: signal.Signals) -> None:
    group, watched = start_group()
    eventually(lambda: len(members(watched)) == 2, "both members run")
    children = members(watched)
    group.send_signal(number)
    assert group.wait(60) == 0
    assert psutil.wait_procs(children, timeout=60)[1] == []


def test_a_stop_that_is_asked_for_twice_is_in_order_too() -> None:
    """As bootstrap.sh in a terminal does: Ctrl-C reaches both, and it hands its own on."""
    group, watched = start_group()
    eventually(lambda: len(members(watched)) == 2, "both members run")
    group.send_signal(signal.SIGSTOP)  # so that both wait when it goes on
    group.send_signal(signal.SIGINT)
    group.send_signal(signal.SIGTERM)
    group.send_signal(signal.SIGCONT)
    assert group.wait(60) == 0


def test_members_do_not_outlive_a_group_that_was_killed() -> None:
    group, watched = start_group()
    eventually(lambda: len(members(watched)) == 2, "both members run")
    children = members(watched)
    group.kill()
    group.wait(60)
    eventually(lambda: not any(runs(child) for child in children), "the members end")


def runs(process: psutil.Process) -> bool:
    """Whether it still runs; one that nobody has reaped yet does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_member_that_dies_is_started_again() -> None:
    group, watched = start_group()
    try:
        eventually(lambda: len(members(watched)) == 2, "both members run")
        victim = members(watched)[0]
        victim.kill()
        eventually(
            lambda: len(members(watched)) == 2 and victim not in members(watched), "a new member"
        )
    finally:
        group.terminate()
        group.wait(60)
