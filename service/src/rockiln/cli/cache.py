"""``rockiln cache export|import``: compiled kernels from one host to another with the same card."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from rockiln.cli.exit_codes import FAILED
from rockiln.domain.errors import RockilnError
from rockiln.domain.kernel_cache import CURRENT_NAME, FOLDER, CacheKey

MANIFEST = "manifest.json"
_SCHEMA = 1
_MANIFEST_MAX_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 20


class CacheFileError(RockilnError):
    """A kernel cache that cannot be moved; the detail says why and what to do."""


def run_export(cache_dir: Path, file: Path) -> int:
    """Writes this host's kernels to ``file``; returns the exit code."""
    return _told(lambda: export_cache(cache_dir, file))


def run_import(cache_dir: Path, file: Path, *, replace: bool) -> int:
    """Takes the kernels of ``file`` into this host's cache; returns the exit code."""
    return _told(lambda: import_cache(cache_dir, file, replace=replace))


def export_cache(cache_dir: Path, file: Path) -> str:
    """A tar file with a manifest of key and checksums first. A sentence about what it holds.

    Raises:
        CacheFileError: no engine has made kernels here yet.
    """
    key = current_key(cache_dir)
    folder = cache_dir / FOLDER / key.folder
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    entries: dict[str, dict[str, Any]] = {
        path.relative_to(folder).as_posix(): {
            "sha256": _digest(path),
            "size_bytes": path.stat().st_size,
        }
        for path in paths
    }
    manifest = {"schema": _SCHEMA, "key": key.as_dict(), "files": entries}
    said = json.dumps(manifest, indent=1, sort_keys=True).encode()
    partial = file.with_name(f".{file.name}.partial")
    with tarfile.open(partial, "w") as archive:
        head = tarfile.TarInfo(MANIFEST)
        head.size = len(said)
        archive.addfile(head, io.BytesIO(said))
        for name in entries:
            member = tarfile.TarInfo(name)
            member.size = entries[name]["size_bytes"]
            with (folder / name).open("rb") as content:
                archive.addfile(member, content)
    partial.replace(file)
    return f"{len(entries)} files of {key.folder} are in {file}"


def import_cache(cache_dir: Path, file: Path, *, replace: bool = False) -> str:
    """Checks every file of an export, then puts them all in place at once.

    Args:
        replace: give up the kernels this host has made itself.

    Raises:
        CacheFileError: of another card, ROCm or torch; damaged; or kernels are here already.
    """
    key = current_key(cache_dir)
    target = cache_dir / FOLDER / key.folder
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".import-") as scratch:
        unpacked = Path(scratch) / "new"
        try:
            with tarfile.open(file, "r:") as archive:
                count = _unpack(archive, key, unpacked)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise CacheFileError(f"{file} is not a whole export: {error}") from error
        (unpacked / "key.json").write_text(json.dumps(key.as_dict(), indent=2) + "\n")
        if _holds_kernels(target) and not replace:
            raise CacheFileError(
                f"{target} has kernels already; --replace gives them up for those of {file}"
            )
        if target.exists():
            target.rename(Path(scratch) / "old")
        unpacked.rename(target)
    return f"{count} files are in {target}; the next engine that starts uses them"


def current_key(cache_dir: Path) -> CacheKey:
    """The key of the engine that started last on this host.

    Raises:
        CacheFileError: none has started yet, or its file is damaged.
    """
    path = cache_dir / FOLDER / CURRENT_NAME
    try:
        return CacheKey.from_dict(json.loads(path.read_bytes()))
    except FileNotFoundError as error:
        raise CacheFileError(
            f"no engine has worked on a GPU with {cache_dir} yet; start the service once first"
        ) from error
    except ValueError as error:
        raise CacheFileError(f"{path}: {error}") from error


def _unpack(archive: tarfile.TarFile, key: CacheKey, folder: Path) -> int:
    """Writes the members to ``folder``; nothing but what the manifest names, checked."""
    members = iter(archive)
    files = _manifest(archive, next(members, None), key)
    folder.mkdir()
    for member in members:
        expected = files.pop(member.name, None)
        if expected is None or not member.isreg():
            raise CacheFileError(f"{member.name!r} is not a file that its manifest names")
        _write(archive, member, expected, folder / member.name)
    if files:
        raise CacheFileError(f"{len(files)} files are missing, such as {min(files)}")
    return sum(1 for path in folder.rglob("*") if path.is_file())


def _manifest(
    archive: tarfile.TarFile, head: tarfile.TarInfo | None, key: CacheKey
) -> dict[str, dict[str, Any]]:
    content = None if head is None or head.name != MANIFEST else archive.extractfile(head)
    if head is None or content is None or head.size > _MANIFEST_MAX_BYTES:
        raise CacheFileError("it does not begin with the manifest of an export")
    try:
        said = json.loads(content.read())
        schema, files = said["schema"], dict(said["files"])
        theirs = CacheKey.from_dict(said["key"])
    except (ValueError, KeyError, TypeError) as error:
        raise CacheFileError(f"its manifest is damaged: {error}") from error
    if schema != _SCHEMA:
        raise CacheFileError(f"its manifest is of schema {schema}, this version reads {_SCHEMA}")
    mismatch = key.mismatch(theirs)
    if mismatch:
        raise CacheFileError(f"these kernels are not for this host: {mismatch}")
    for name in files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or path.as_posix() != name or not path.parts:
            raise CacheFileError(f"{name!r} leads out of the cache folder")
    return files


def _write(
    archive: tarfile.TarFile, member: tarfile.TarInfo, expected: dict[str, Any], path: Path
) -> None:
    content = archive.extractfile(member)
    if content is None or member.size != expected.get("size_bytes"):
        raise CacheFileError(f"{member.name!r} has another size than its manifest says")
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for chunk in _chunks(content):
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != expected.get("sha256"):
        raise CacheFileError(f"{member.name!r} is damaged: its checksum is another")


def _holds_kernels(folder: Path) -> bool:
    return any(path.is_file() and path.name != "key.json" for path in folder.rglob("*"))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


def _told(work: Any) -> int:
    try:
        print(work())
    except (CacheFileError, OSError) as error:
        detail = error.detail if isinstance(error, CacheFileError) else str(error)
        print(f"rockiln: {detail}", file=sys.stderr)
        return FAILED
    return 0
