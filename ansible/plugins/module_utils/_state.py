"""PRIVATE to the collection. What a host was before an upgrade, so that it can be that again.

``/etc/rockiln/state`` holds one record a file (``0001.json`` …, written once) and ``pointer.json``:
which record is current, which one was before it, and the upgrade under way if there is one. An
upgrade that was killed is one that stands there. The job store is not in it: it only goes forward.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SCHEMA = 1
POINTER = "pointer.json"
EMPTY: dict[str, Any] = {
    "schema": SCHEMA,
    "current": None,
    "previous": None,
    "upgrade": None,
    "failure": None,
    "rolled_back": False,  # by hand; a second rollback.yml then stays
}
# What makes a record the same as another: everything but its number and time.
CONTENT = ("release", "row", "images", "packages", "files")


class StateError(Exception):
    """A record is missing or damaged, or there is nothing to go back to."""


def utc_now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class StateDir:
    """Records of one host.

    Args:
        now: a time as text, for people.
    """

    def __init__(self, folder: Path, now: Callable[[], str] = utc_now) -> None:
        self.folder = folder
        self._now = now

    def pointer(self) -> dict[str, Any]:
        path = self.folder / POINTER
        return {**EMPTY, **self._load(path)} if path.is_file() else dict(EMPTY)

    def record(self, number: int) -> dict[str, Any]:
        path = self.folder / f"{number:04}.json"
        if not path.is_file():
            raise StateError(f"there is no record {path}; there are: {self._names()}")
        return self._load(path)

    def numbers(self) -> list[int]:
        return sorted(int(path.stem) for path in self.folder.glob("[0-9][0-9][0-9][0-9].json"))

    def begin(self, present: Mapping[str, Any], *, release: str) -> bool:
        """Record what is here and say that it is about to change.

        With an upgrade already under way what is here is half of one: its record stays.
        """
        pointer = self.pointer()
        if pointer["upgrade"] is not None:
            if pointer["upgrade"]["to"] == release:
                return False
            pointer["upgrade"]["to"] = release
        else:
            number = self._keep(present, pointer["current"])
            pointer["current"] = number
            pointer["upgrade"] = {"from": number, "to": release, "begun_at": self._now()}
        self._write(POINTER, pointer)
        return True

    def finish(self, present: Mapping[str, Any]) -> bool:
        """The upgrade under way has been verified: what is here now is current."""
        pointer = self.pointer()
        if pointer["upgrade"] is None:
            return False
        before = pointer["upgrade"]["from"]
        number = self._keep(present, before)
        if number != before:
            pointer["previous"] = before
        pointer.update(current=number, upgrade=None, failure=None, rolled_back=False)
        self._write(POINTER, pointer)
        return True

    def went_back(self, number: int, *, reason: str, by_hand: bool) -> bool:
        """The host is as this record says again."""
        pointer = self.pointer()
        if pointer["upgrade"] is None and pointer["current"] == number:
            return False
        left = pointer["upgrade"]["to"] if pointer["upgrade"] else f"record {pointer['current']}"
        earlier = [known for known in self.numbers() if known < number]
        pointer.update(
            current=number,
            previous=earlier[-1] if earlier else None,
            upgrade=None,
            failure={"left": left, "at": self._now(), "reason": reason},
            rolled_back=by_hand,
        )
        self._write(POINTER, pointer)
        return True

    def target(self, number: int | None) -> dict[str, Any] | None:
        """The record to go back to. None: the host went back already, and stays.

        Raises:
            StateError: nothing was recorded.
        """
        pointer = self.pointer()
        if number is not None:
            wanted = number
        elif pointer["upgrade"] is not None:
            wanted = pointer["upgrade"]["from"]
        elif pointer["rolled_back"]:
            return None
        elif pointer["previous"] is not None:
            wanted = pointer["previous"]
        else:
            raise StateError(
                "no earlier state of this host is recorded; upgrade.yml records one. "
                f"Records: {self._names()}"
            )
        if pointer["upgrade"] is None and pointer["current"] == wanted:
            return None
        return self.record(wanted)

    def _keep(self, present: Mapping[str, Any], equal_to: int | None) -> int:
        """The number of a record with this content: the one there, or a new one."""
        content = {name: present[name] for name in CONTENT}
        if equal_to is not None:
            known = self.record(equal_to)
            if {name: known.get(name) for name in CONTENT} == content:
                return equal_to
        number = max(self.numbers(), default=0) + 1
        self._write(
            f"{number:04}.json",
            {"schema": SCHEMA, "number": number, "recorded_at": self._now(), **content},
        )
        return number

    def _names(self) -> str:
        return ", ".join(str(number) for number in self.numbers()) or "none"

    def _load(self, path: Path) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise StateError(f"{path} is damaged: {error}") from error
        if found.get("schema") != SCHEMA:
            raise StateError(
                f"{path} has schema {found.get('schema')}; this version reads {SCHEMA}"
            )
        return found

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        """Whole or not at all: a run may be killed here."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{name}.new"
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(json.dumps(content, indent=1, sort_keys=True) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(self.folder / name)
