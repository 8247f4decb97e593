"""Which model exactly: one digest over the files that decide its pictures. No torch."""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import suppress
from pathlib import Path

from rockiln.domain.model import ModelProfile
from rockiln.registry.manifest import MANIFEST_NAME
from rockiln.registry.transformer_file import COMPONENT
from rockiln.store.artefacts import write_durably

_WEIGHTS_SUFFIXES = (".safetensors", ".gguf")
_DECIDING_SUFFIXES = (*_WEIGHTS_SUFFIXES, ".json", ".txt", ".model")
_LEFT_OUT = {MANIFEST_NAME, *_DECIDING_SUFFIXES}  # ".json" is a name, and no suffix


def signature(model: Path, configs: Path | None = None) -> str:
    """Changes when a file is added, removed or written; cheap, reads no content.

    Args:
        model: a folder, or a single file.
        configs: the folder that lends a single file its configs, or a transformer all the rest.
    """
    facts = []
    for name, path in _deciding_files(model, configs):
        status = os.stat(path)  # noqa: PTH116 (see _files_in)
        facts.append(f"{name}\0{status.st_size}\0{status.st_mtime_ns}")
    return hashlib.sha256("\n".join([str(model.resolve()), *facts]).encode()).hexdigest()


def signature_of(profile: ModelProfile) -> str:
    """Likewise, of a model of the registry, and of what its owner wants rounded."""
    files = signature(Path(profile.path), Path(profile.configs) if profile.configs else None)
    if not profile.quantisation:
        return files
    kinds = sorted(profile.quantisation.items())
    return hashlib.sha256(f"{files}{kinds}".encode()).hexdigest()


def revision(model: Path, cache_dir: Path, configs: Path | None = None) -> str:
    """SHA-256 over names and contents, kept in ``cache_dir`` under the folder's signature.

    Cards, licences, pictures and the manifest do not count: they change no pixel.
    """
    kept = cache_dir / "revisions" / signature(model, configs)
    if kept.is_file():
        return kept.read_text(encoding="ascii")
    total = hashlib.sha256()
    for name, path in _deciding_files(model, configs):
        with Path(path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{name}\0{digest}\n".encode())
    try:
        write_durably(kept, total.hexdigest().encode())
    except OSError as error:
        sys.stderr.write(f"the digest of {model.name} is not kept: {error}\n")
    return total.hexdigest()


def _deciding_files(model: Path, configs: Path | None) -> list[tuple[str, str]]:
    """Names that tell the files apart, and the files."""
    if configs is None and model.is_file():
        return [(model.suffix, str(model))]
    if configs is None:
        return _files_in(model)
    own = (configs / COMPONENT).is_dir()
    lent = [
        (name, path)
        for name, path in _files_in(configs)
        # A whole checkpoint has all weights, a transformer file those of that part.
        if not name.endswith(_WEIGHTS_SUFFIXES) or (own and not name.startswith(f"{COMPONENT}/"))
    ]
    return [(model.suffix, str(model)), *lent]


def _files_in(folder: Path) -> list[tuple[str, str]]:
    """Below it, in the order of paths; links to files count, links to folders do not.

    By plain names: callers wait for it, and a path object for each file takes three times as long.
    """
    found: list[tuple[str, str]] = []
    ahead = [("", str(folder))]
    while ahead:
        inside, path = ahead.pop()
        with suppress(PermissionError, FileNotFoundError), os.scandir(path) as entries:
            for entry in entries:
                name = inside + entry.name
                if entry.is_dir(follow_symlinks=False):
                    ahead.append((f"{name}/", entry.path))
                elif (
                    entry.name.endswith(_DECIDING_SUFFIXES)
                    and entry.name not in _LEFT_OUT
                    and entry.is_file()
                ):
                    found.append((name, entry.path))
    return sorted(found, key=lambda file: file[0].split("/"))
