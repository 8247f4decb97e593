"""The fault-injecting engine is a test's: chosen by a test's setting, in no image and no wheel."""

from __future__ import annotations

import re
from pathlib import Path

from rockiln.settings import Settings
from support.fault_bench import STUB

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("service/", "containers/")


def test_no_image_and_no_wheel_takes_it_in() -> None:
    copied = [
        source
        for file in ROOT.glob("containers/**/Containerfile*")
        for line in file.read_text().splitlines()
        if (found := re.match(r"(?:COPY|ADD)(?: --\S+)* (\S+) ", line)) and "--from" not in line
        for source in [found[1]]
    ]
    assert copied, "the Containerfiles copy something"
    assert all(f"{source}/".startswith(SHIPPED) for source in copied)
    assert not any(STUB.is_relative_to(ROOT / folder) for folder in SHIPPED)


def test_nothing_that_ships_knows_of_it() -> None:
    knowing = [
        file
        for folder in SHIPPED
        for file in (ROOT / folder).rglob("*")
        if file.suffix in {".py", ".toml", ".j2", ".sh"} and "FAULTS_BENCH" in file.read_text()
    ]
    assert knowing == []


def test_it_is_no_default() -> None:
    assert Settings().worker_python != STUB
