"""One file from the hub to the disk: resumed where it broke off, taken only if its digest fits."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rockiln.domain.errors import BrokenModelError, RockilnError
from rockiln.fetcher.hub import Hub, HubFile, HubUnreachableError
from rockiln.store.artefacts import make_folder, sync_folder

_CHUNK_BYTES = 1 << 20
_TRIES_WITHOUT_A_BYTE = 5
_BACKOFF_MAX_SECONDS = 30.0


class CancelledError(RockilnError):
    """Somebody wants the download no more."""


# Takes the bytes of a file that are there now. Raises CancelledError.
OnBytes = Callable[[int], None]


@dataclass(frozen=True)
class Transfer:
    """From one repository at one commit."""

    hub: Hub
    repository: str
    commit: str
    backoff_seconds: float

    def fetch(
        self, file: HubFile, folder: Path, on_bytes: OnBytes, *, cached: Path | None = None
    ) -> str:
        """Puts the file into ``folder``; returns its SHA-256. What is whole there already stays.

        Args:
            cached: the same file elsewhere on this host, taken if its digest fits.

        Raises:
            BrokenModelError: what arrives is not what the hub announced, twice.
            HubError: the hub does not give it.
            CancelledError: from ``on_bytes``.
            OSError: the disk does not take it.
        """
        target = folder / file.path
        if target.is_file() and target.stat().st_size == file.size_bytes:
            on_bytes(file.size_bytes)  # it got its name only after its digest was checked
            return _sha256(target) if file.sha256 is None else file.sha256
        part = folder.parent / f"{folder.name}.parts" / file.path.replace("/", "__")
        make_folder(part.parent)
        if cached is not None and not part.exists():
            shutil.copyfile(cached, part)
        for last in (False, True):
            digest = self._fill(file, part, on_bytes)
            if digest.matches():
                break
            part.unlink()
            if last:
                raise BrokenModelError(
                    f"{file.path}: {digest.told()}; the hub, or something between, gives other "
                    "bytes"
                )
        make_folder(target.parent)
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.rename(target)
        sync_folder(target.parent)
        return digest.sha256.hexdigest()

    def _fill(self, file: HubFile, part: Path, on_bytes: OnBytes) -> _Digest:
        """Appends until ``part`` has the file's size.

        A broken connection is followed by the next as long as bytes arrive.
        """
        tries = 0
        while True:
            have = part.stat().st_size if part.exists() else 0
            on_bytes(min(have, file.size_bytes))
            if have >= file.size_bytes:
                part.touch()  # an empty file has no first byte to wait for
                return _Digest.of(part, file)
            try:
                self._append(file, part, on_bytes)
                reason = "the connection ended too early"
            except HubUnreachableError as error:
                reason = error.detail
            arrived = part.exists() and part.stat().st_size != have
            tries = 0 if arrived else tries + 1
            if tries >= _TRIES_WITHOUT_A_BYTE:
                raise HubUnreachableError(f"{file.path}: {reason}")
            if part.exists() and part.stat().st_size == file.size_bytes:
                continue
            time.sleep(min(self.backoff_seconds * 2**tries, _BACKOFF_MAX_SECONDS))

    def _append(self, file: HubFile, part: Path, on_bytes: OnBytes) -> None:
        """What one connection brings; a byte too many shows that it is another file."""
        have = part.stat().st_size if part.exists() else 0
        with self.hub.open(self.repository, self.commit, file.path, start=have) as body:
            if body.begins != have:
                part.unlink(missing_ok=True)  # no such part there: all of it comes again
            with part.open("ab") as out:
                while chunk := body.read(_CHUNK_BYTES):
                    out.write(chunk)
                    on_bytes(min(out.tell(), file.size_bytes))
                    if out.tell() > file.size_bytes:
                        return


class _Digest:
    """SHA-256 of the content, and git's digest where the hub knows no other."""

    def __init__(self, file: HubFile) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self._git = hashlib.sha1(usedforsecurity=False)
        self._git.update(b"blob %d\0" % file.size_bytes)

    @classmethod
    def of(cls, path: Path, file: HubFile) -> Self:
        """Reads what is on the disk, not what was sent there."""
        digest = cls(file)
        with path.open("rb") as content:
            while chunk := content.read(_CHUNK_BYTES):
                digest.sha256.update(chunk)
                if file.sha256 is None:
                    digest._git.update(chunk)
        return digest

    def matches(self) -> bool:
        file = self._file
        if file.sha256 is not None:
            return self.sha256.hexdigest() == file.sha256
        return file.blob_id is None or self._git.hexdigest() == file.blob_id

    def told(self) -> str:
        if self._file.sha256 is not None:
            return f"SHA-256 {self.sha256.hexdigest()}, not {self._file.sha256}"
        return f"git digest {self._git.hexdigest()}, not {self._file.blob_id}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
