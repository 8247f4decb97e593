"""Records what a process writes, and makes the disks that a power cut could have left.

The model is stricter than any real file system: what was not synced may be there, or not, or half
(in sectors of 512 bytes), each write for itself; a name is there for sure only after its folder
was synced.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

SECTOR_BYTES = 512
_CALLS = (
    "openat,write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,ftruncate,"
    "mkdir,mkdirat,rmdir"
)
_LINE = re.compile(r"^(\w+)\((.*)\)\s+= (-?\d+)(?:<(.*)>)?")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_DESCRIPTOR = re.compile(r"^(AT_FDCWD|\d+)<((?:\\x[0-9a-f]{2})*)")


@dataclass(frozen=True)
class Call:
    """One system call that changed the disk, or a promise that the process gave."""

    what: Literal[
        "create", "truncate", "write", "sync", "rename", "unlink", "mkdir", "rmdir", "ack"
    ]
    path: str
    offset: int = 0
    data: bytes = b""
    target: str = ""


def record(script: Path, root: Path, acks: Path, *arguments: str) -> list[Call]:
    """Runs ``script ROOT ACKS …`` under strace; gives its calls below ``root`` and its promises."""
    log = root.parent / "calls.txt"
    subprocess.run(
        ["strace", "-f", "-y", "-xx", "-s", "4000000", "-e", f"trace={_CALLS}", "-e", "signal=none",
         "-o", str(log), sys.executable, str(script), str(root), str(acks), *arguments],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    return list(_read(log, str(root), str(acks)))


def _read(log: Path, root: str, acks: str) -> Iterator[Call]:
    places: dict[str, int] = {}  # where the next write() of an open file goes
    with log.open() as lines:
        for line in lines:
            match = _LINE.match(line.split(" ", 1)[1].lstrip())
            if match is None or int(match[3]) < 0:
                if "unfinished" in line or "resumed" in line:
                    raise AssertionError(f"threads wrote at the same time: {line[:100]}")
                continue
            yield from _calls(match, root, acks, places)


def _calls(  # noqa: C901, PLR0912 (one arm per system call)
    match: re.Match[str], root: str, acks: str, places: dict[str, int]
) -> Iterator[Call]:
    name, arguments = match[1], match[2]
    texts = [bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(arguments)]
    given = _DESCRIPTOR.match(arguments)
    path = bytes.fromhex(given[2].replace("\\x", "")).decode() if given else ""
    if name in {"write", "pwrite64"} and path == acks:
        yield Call("ack", acks, data=texts[0])
        return

    def full(text: bytes) -> str:
        named = text.decode()
        return named if named.startswith("/") else f"{path}/{named}"

    named = [full(text) for text in texts] if name not in {"write", "pwrite64"} else []
    if not (named[0] if named else path).startswith(f"{root}"):
        return
    match name:
        case "openat":
            places[named[0]] = 0
            if "O_CREAT" in arguments:
                yield Call("create", named[0])
            if "O_TRUNC" in arguments:
                yield Call("truncate", named[0])
        case "write":
            offset = places.get(path, 0)
            places[path] = offset + len(texts[0])
            yield Call("write", path, offset, texts[0])
        case "pwrite64":
            yield Call("write", path, int(arguments.rsplit(",", 1)[1]), texts[0])
        case "ftruncate":
            yield Call("truncate", path, int(arguments.rsplit(",", 1)[1]))
        case "fsync" | "fdatasync":
            yield Call("sync", path)
        case "rename" | "renameat" | "renameat2":
            yield Call("rename", named[0], target=named[1])
        case "unlink":
            yield Call("unlink", named[0])
        case "rmdir":
            yield Call("rmdir", named[0])
        case "unlinkat":
            yield Call("rmdir" if "AT_REMOVEDIR" in arguments else "unlink", named[0])
        case "mkdir" | "mkdirat":
            yield Call("mkdir", named[0])


@dataclass
class _File:
    safe: bytearray = field(default_factory=bytearray)
    pending: list[Call] = field(default_factory=list)


class Disk:
    """What is on the disk for sure, and what is only on its way."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._names: dict[str, _File | None] = {root: None}  # None: a folder
        self._safe: dict[str, _File | None] = {root: None}
        self._pending: list[Call] = []  # changes of names
        self._links: dict[int, _File | None] = {}

    def do(self, call: Call) -> None:
        """One call succeeds."""
        match call.what:
            case "create" if call.path not in self._names:
                self._name(call, _File())
            case "mkdir":
                self._name(call, None)
            case "write" | "truncate":
                file = self._names[call.path]
                if file is not None:
                    file.pending.append(call)
            case "sync":
                self._sync(call.path)
            case "rename":
                moved = self._names.pop(call.path)
                self._names[call.target] = moved
                self._links[id(call)] = moved
                self._pending.append(call)
            case "unlink" | "rmdir":
                self._names.pop(call.path)
                self._pending.append(call)

    def _name(self, call: Call, thing: _File | None) -> None:
        self._names[call.path] = thing
        self._links[id(call)] = thing
        self._pending.append(call)

    def _sync(self, path: str) -> None:
        thing = self._names.get(path)
        if thing is not None:
            for call in thing.pending:
                _apply(thing.safe, call)
            thing.pending.clear()
            return
        left = []
        for call in self._pending:
            if path in {_folder(call.path), _folder(call.target)}:
                self._rename(self._safe, call)
            else:
                left.append(call)
        self._pending = left

    def _rename(self, names: dict[str, _File | None], call: Call) -> None:
        if call.what in {"create", "mkdir"}:
            names[call.path] = self._links[id(call)]
        else:
            names.pop(call.path, None)
            if call.what == "rename":
                names[call.target] = self._links[id(call)]

    def cut(self, target: Path, chance: random.Random | None, kept: float) -> None:
        """Writes what a power cut leaves now into ``target``.

        Args:
            kept: share of the calls on their way that still reached the disk, 0 to 1.
        """
        names = dict(self._safe)
        for call in self._pending:
            if chance is not None and chance.random() < kept:
                self._rename(names, call)
        target.mkdir()
        for name in sorted(names):
            place = target / os.path.relpath(name, self._root)
            thing = names[name]
            if name == self._root or not place.parent.is_dir():
                continue  # its folder did not make it
            if thing is None:
                place.mkdir(exist_ok=True)
            elif not name.endswith("-shm"):  # shared memory of the living
                place.write_bytes(self._content(thing, chance, kept))

    @staticmethod
    def _content(file: _File, chance: random.Random | None, kept: float) -> bytes:
        content = bytearray(file.safe)
        for call in file.pending:
            if chance is None or chance.random() >= kept:
                continue
            data = call.data
            if call.what == "write" and chance.random() < 0.3:
                sectors = len(data) // SECTOR_BYTES
                data = data[: SECTOR_BYTES * chance.randint(0, sectors)]
            _apply(content, Call(call.what, call.path, call.offset, data))
        return bytes(content)


def _apply(content: bytearray, call: Call) -> None:
    if call.what == "truncate":
        if len(content) > call.offset:
            del content[call.offset :]
        else:
            content.extend(bytes(call.offset - len(content)))
        return
    if len(content) < call.offset:
        content.extend(bytes(call.offset - len(content)))
    content[call.offset : call.offset + len(call.data)] = call.data


def _folder(path: str) -> str:
    return path.rpartition("/")[0]
