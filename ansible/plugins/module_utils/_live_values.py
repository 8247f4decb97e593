"""PRIVATE to the collection. Values below /proc/sys and /sys, and what they were before us."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from ansible_collections.rockiln.host.plugins.module_utils._host_files import write_whole


@dataclasses.dataclass(frozen=True)
class Change:
    """What is written, what stands in the record then, and what could not be done."""

    before: Mapping[str, str]
    after: Mapping[str, str]
    record: Mapping[str, str]
    record_then: Mapping[str, str]
    not_applied: tuple[str, ...]

    @property
    def changed(self) -> bool:
        return bool(self.after) or self.record != self.record_then


def read_value(path: Path) -> str:
    """As written; of a choice like ``always [madvise] never`` the chosen word."""
    text = " ".join(path.read_text(encoding="utf-8").split())
    chosen = re.search(r"\[(\S+)\]", text)
    return chosen[1] if chosen else text


def obstacle(path: Path) -> str:
    """Why it cannot be written; nothing where it can."""
    if not path.exists():
        return "this kernel has no such value"
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return "read-only"
    if not os.access(path, os.W_OK):
        return "not writable"
    return ""


def read_record(path: Path) -> dict[str, str]:
    """Value before our first change, by path."""
    if not path.is_file():
        return {}
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return found


def plan_change(values: Mapping[str, str], record: Mapping[str, str]) -> Change:
    """The wishes, and back to its former value what is no longer wished."""
    back = {name: value for name, value in record.items() if name not in values}
    then = dict(record)
    before, after, not_applied = {}, {}, []
    for name, value in sorted({**back, **values}.items()):
        hindered = obstacle(Path(name))
        if hindered:
            not_applied.append(f"{name}, {hindered}")
            continue
        found = read_value(Path(name))
        if name not in values:
            then.pop(name)
        elif found != value:
            then.setdefault(name, found)
        if found != value:
            before[name], after[name] = found, value
    return Change(before, after, dict(record), then, tuple(not_applied))


def apply_change(change: Change, record_path: Path) -> None:
    """Former values are on disk before the first of them is overwritten."""
    both = {**change.record, **change.record_then}
    if both != change.record:
        write_record(record_path, both)
    for name, value in change.after.items():
        Path(name).write_text(f"{value}\n", encoding="utf-8")
    if change.record_then != both:
        write_record(record_path, change.record_then)


def write_record(path: Path, record: Mapping[str, str]) -> None:
    if record:
        write_whole(path, (json.dumps(record, indent=2, sort_keys=True) + "\n").encode())
    else:
        path.unlink(missing_ok=True)
