"""Which model exactly: one digest over the files that decide its pictures. No torch."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from rockiln.registry.manifest import MANIFEST_NAME
from rockiln.store.artefacts import write_durably

_DECIDING_SUFFIXES = {".safetensors", ".json", ".txt", ".model"}


def signature(folder: Path) -> str:
    """Changes when a file is added, removed or written; cheap, reads no content."""
    facts = []
    for path in _deciding_files(folder):
        status = path.stat()
        facts.append(f"{path.relative_to(folder)}\0{status.st_size}\0{status.st_mtime_ns}")
    return hashlib.sha256("\n".join([str(folder.resolve()), *facts]).encode()).hexdigest()


def revision(folder: Path, cache_dir: Path) -> str:
    """SHA-256 over names and contents, kept in ``cache_dir`` under the folder's signature.

    Cards, licences, pictures and the manifest do not count: they change no pixel.
    """
    kept = cache_dir / "revisions" / signature(folder)
    if kept.is_file():
        return kept.read_text(encoding="ascii")
    total = hashlib.sha256()
    for path in _deciding_files(folder):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.relative_to(folder)}\0{digest}\n".encode())
    try:
        write_durably(kept, total.hexdigest().encode())
    except OSError as error:
        sys.stderr.write(f"the digest of {folder.name} is not kept: {error}\n")
    return total.hexdigest()


def _deciding_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in _DECIDING_SUFFIXES and path.name != MANIFEST_NAME and path.is_file()
    )
