"""PRIVATE to the collection. What dpkg knows and whether it may be asked for more. Reads only."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

ADMIN_DIR = Path("/var/lib/dpkg")
LOCKS = ("var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock", "var/lib/apt/lists/lock")
# Where a package rests; every other state is one that dpkg was interrupted in.
RESTING = frozenset({"installed", "config-files", "not-installed"})
FLOCK = "hhqqi4x"


@dataclasses.dataclass(frozen=True)
class Installed:
    """One package that dpkg has unpacked."""

    version: str
    held: bool


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """Fields of each paragraph; continuation lines are joined."""
    for paragraph in text.split("\n\n"):
        fields: dict[str, str] = {}
        name = ""
        for line in paragraph.splitlines():
            if line[:1] in {" ", "\t"}:
                fields[name] = f"{fields.get(name, '')}\n{line[1:]}"
            elif ":" in line:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
        if fields:
            yield fields


def parse_status(text: str) -> tuple[dict[str, Installed], list[str]]:
    """What is installed by name, and the packages that an interrupted dpkg left half done."""
    found: dict[str, Installed] = {}
    half_done = []
    for fields in stanzas(text):
        want, flag, state = (fields.get("Status", "") + " - - -").split()[:3]
        if state not in RESTING or flag == "reinstreq":
            half_done.append(f"{fields['Package']} ({state})")
        if state == "installed":
            found[fields["Package"]] = Installed(fields.get("Version", ""), want == "hold")
    return found, half_done


def read_status(admin_dir: Path = ADMIN_DIR) -> tuple[dict[str, Installed], list[str]]:
    """The same of this host; a journal that dpkg did not merge counts as interrupted."""
    found, half_done = parse_status(
        (admin_dir / "status").read_text(encoding="utf-8", errors="replace")
    )
    journal = admin_dir / "updates"
    if journal.is_dir() and any(name.isdigit() for name in os.listdir(journal)):
        half_done.append("dpkg's own journal")
    return found, half_done


def lock_holder(path: Path) -> int | None:
    """PID of the process that holds this lock; None when nobody does."""
    if not path.exists():
        return None
    with path.open("r+b") as file:
        asked = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else pid


def process_name(pid: int, proc: Path = Path("/proc")) -> str:
    """``comm`` of a process; it may have left meanwhile."""
    try:
        return (proc / str(pid) / "comm").read_text(encoding="utf-8").strip()
    except OSError:
        return "a process that has left"


def wait_for_locks(seconds: float, root: Path = Path("/")) -> tuple[Path, int] | None:
    """Wait until nobody holds a lock of apt or dpkg; who still does when the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        held = [(root / name, lock_holder(root / name)) for name in LOCKS]
        holders = [(path, pid) for path, pid in held if pid is not None]
        if not holders:
            return None
        if time.monotonic() >= deadline:
            return holders[0]
        time.sleep(0.5)


def differing(wanted: Mapping[str, str], installed: Mapping[str, Installed]) -> dict[str, str]:
    """Of name → version what is not installed in exactly that version."""
    return {
        name: version
        for name, version in wanted.items()
        if name not in installed or installed[name].version != version
    }


def compare_versions(left: str, right: str) -> int:
    """As dpkg orders versions."""
    for relation, answer in (("lt", -1), ("eq", 0)):
        asked = ["dpkg", "--compare-versions", left, relation, right]
        if subprocess.run(asked, check=False).returncode == 0:
            return answer
    return 1
