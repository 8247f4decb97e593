"""Files that must survive a power cut: written whole under a temporary name, then renamed.

Pictures are named by their SHA-256, so publishing one twice is harmless; inputs, the pictures that
clients send, likewise. Latents are named by job and picture, because they are removed once the job
has ended.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # pydantic takes a third of the time that a small child needs to start
    from rockiln.domain.request import PictureFormat

SUFFIXES: dict[PictureFormat, str] = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}

# A temporary file that nobody has touched for this long has lost its process.
STRAY_SECONDS = 3600.0
# With fewer free inodes than this nothing is accepted: what was accepted needs some still.
INODES_KEPT = 1000


def write_durably(path: Path, data: bytes) -> None:
    """Writes ``data`` so that ``path`` holds all of it or does not exist, whatever happens.

    temp file → fsync → rename → fsync of the folder.
    """
    make_folder(path.parent)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).rename(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Like ``mkdir -p``, and the new names survive a power cut."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_once(path: Path, data: bytes) -> None:
    """A file that is named by its content."""
    try:
        os.utime(path)  # young again: a deletion of its other owner lets it be
        sync_folder(path.parent)  # the other writer may be between rename and fsync
    except FileNotFoundError:
        write_durably(path, data)


class ArtefactStore:
    """Pictures, inputs and latents below one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def prepare(self) -> None:
        """Makes the folders and drops temporary files that a dead process left."""
        for name in ("pictures", "inputs", "latents"):
            make_folder(self._root / name)
        self.sweep()

    def sweep(self) -> None:
        """Drops temporary files that a dead process left."""
        # Api and worker both come here: a young file may be one that the other is writing.
        newest = time.time() - STRAY_SECONDS
        for stray in self._root.glob("**/.tmp-*"):
            with suppress(FileNotFoundError):
                if stray.stat().st_mtime < newest:
                    stray.unlink()

    @property
    def evidence_dir(self) -> Path:
        """One file for each death that was looked into."""
        return self._root / "evidence"

    def make_picture_folders(self) -> None:
        """Ahead of ``put_picture``: no caller waits until a folder's name is on disk."""
        pictures = self._root / "pictures"
        make_folder(pictures)
        for name in {f"{first:02x}" for first in range(256)}.difference(os.listdir(pictures)):
            (pictures / name).mkdir(exist_ok=True)
        sync_folder(pictures)

    def put_picture(self, data: bytes, picture_format: PictureFormat) -> str:
        """Stores an encoded picture; returns its SHA-256 in hex."""
        digest = hashlib.sha256(data).hexdigest()
        _write_once(self.picture_path(digest, picture_format), data)
        return digest

    def put_input(self, data: bytes) -> str:
        """Stores a checked PNG that a client sent; returns its SHA-256 in hex."""
        digest = hashlib.sha256(data).hexdigest()
        _write_once(self.input_path(digest), data)
        return digest

    def input_path(self, digest: str) -> Path:
        return self._root / "inputs" / digest[:2] / f"{digest}.png"

    def old_inputs(self, now: float, fresh_seconds: float) -> list[Path]:
        """Inputs that nobody has stored for so long."""
        return [
            path
            for path in (self._root / "inputs").glob("*/*.png")
            if (self.age_seconds(path, now) or 0.0) > fresh_seconds
        ]

    def picture_path(self, digest: str, picture_format: PictureFormat) -> Path:
        return self.picture_file(digest, SUFFIXES[picture_format])

    def picture_file(self, digest: str, suffix: str) -> Path:
        return self._root / "pictures" / digest[:2] / f"{digest}{suffix}"

    @staticmethod
    def age_seconds(path: Path, now: float) -> float | None:
        """Since it was last written; None if it is not there."""
        try:
            return now - path.stat().st_mtime
        except FileNotFoundError:
            return None

    def latents_jobs(self) -> list[str]:
        """Jobs that have a folder of latents or previews."""
        return sorted(
            {path.name for kind in ("latents", "previews") for path in self._root.glob(f"{kind}/*")}
        )

    def make_latents_folder(self, job_id: str) -> None:
        """Ahead of ``put_latents``, which would make it, and have the engine wait for the disk."""
        make_folder(self._root / "latents" / job_id)

    def put_latents(self, job_id: str, index: int, data: bytes) -> str:
        """Stores the final latents of a picture; returns the name to load them by."""
        name = f"{job_id}/{index}.safetensors"
        write_durably(self.latents_path(name), data)
        return name

    def latents_path(self, name: str) -> Path:
        return self._root / "latents" / name

    def drop_latents(self, job_id: str) -> None:
        """Removes the latents and previews of an ended job."""
        for kind in ("latents", "previews"):
            with suppress(FileNotFoundError):  # never there, or another worker was faster
                shutil.rmtree(self._root / kind / job_id)

    def put_preview(self, job_id: str, index: int, data: bytes) -> None:
        """In place of the one before. It need not survive anything."""
        path = self.preview_path(job_id, index)
        path.parent.mkdir(parents=True, exist_ok=True)
        written = path.with_name(f".tmp-{index}")
        written.write_bytes(data)
        written.replace(path)

    def preview_path(self, job_id: str, index: int) -> Path:
        """Where the newest preview of a picture in the making is, a JPEG."""
        return self._root / "previews" / job_id / f"{index}.jpg"

    @property
    def root(self) -> Path:
        return self._root

    def free_bytes(self) -> int:
        """Free space for an unprivileged process."""
        return shutil.disk_usage(self._root).free

    def free_inodes(self) -> int | None:
        """Files that can still be made; None where the file system counts none."""
        found = os.statvfs(self._root)
        return found.f_favail if found.f_files else None
