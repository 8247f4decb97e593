"""Kernel caches leave a host whole and come into another only if they fit it."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rockiln.cli.cache import (
    CacheFileError,
    current_key,
    export_cache,
    import_cache,
    run_import,
)
from rockiln.domain.kernel_cache import CURRENT_NAME, FOLDER, CacheKey

KEY = CacheKey("gfx1100", "7.2.4", "2.9.1+rocm7.2.4", "sha256:aa")
FILES = {"miopen/db/gfx1100.ufdb.txt": b"solver", "triton/ab/kernel.hsaco": bytes(range(256))}


def host(folder: Path, key: CacheKey = KEY, files: dict[str, bytes] | None = None) -> Path:
    """A cache folder as an engine leaves it."""
    own = folder / FOLDER / key.folder
    own.mkdir(parents=True)
    said = json.dumps(key.as_dict())
    (own / "key.json").write_text(said)
    (folder / FOLDER / CURRENT_NAME).write_text(said)
    for name, content in (files or {}).items():
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        (own / name).write_bytes(content)
    return folder


def kernels(folder: Path) -> dict[str, bytes]:
    own = folder / FOLDER / current_key(folder).folder
    return {
        path.relative_to(own).as_posix(): path.read_bytes()
        for path in own.rglob("*")
        if path.is_file() and path.name != "key.json"
    }


@pytest.fixture
def export(tmp_path: Path) -> Path:
    export_cache(host(tmp_path / "one", files=FILES), tmp_path / "kernels.tar")
    return tmp_path / "kernels.tar"


def test_kernels_arrive_whole_under_the_other_hosts_own_image(export: Path, tmp_path: Path) -> None:
    other = host(tmp_path / "other", replace(KEY, image="sha256:bb"))
    import_cache(other, export)
    assert kernels(other) == FILES
    assert current_key(other).image == "sha256:bb"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gfx": "gfx1030"}, "gfx gfx1100 there, gfx1030 here"),
        ({"rocm": "6.4.2"}, "rocm 7.2.4 there, 6.4.2 here"),
        ({"torch": "2.10.0"}, "torch"),
    ],
)
def test_kernels_of_another_card_rocm_or_torch_are_refused(
    export: Path, tmp_path: Path, change: dict[str, str], words: str
) -> None:
    other = host(tmp_path / "other", replace(KEY, **change))
    with pytest.raises(CacheFileError, match=words):
        import_cache(other, export)
    assert kernels(other) == {}


def test_own_kernels_are_given_up_only_when_asked(export: Path, tmp_path: Path) -> None:
    own = {"miopen/db/own.txt": b"own"}
    other = host(tmp_path / "other", files=own)
    with pytest.raises(CacheFileError, match="--replace"):
        import_cache(other, export)
    assert kernels(other) == own
    import_cache(other, export, replace=True)
    assert kernels(other) == FILES
    assert sorted(path.name for path in (other / FOLDER).iterdir()) == sorted(
        [CURRENT_NAME, KEY.folder]
    )


def rewrite(export: Path, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]) -> None:
    """The export with its members changed."""
    with tarfile.open(export) as archive:
        members = [
            (member, file.read() if (file := archive.extractfile(member)) else b"")
            for member in archive
        ]
    change(members)
    with tarfile.open(export, "w") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def name_in_manifest(members: list[tuple[tarfile.TarInfo, bytes]], name: str) -> None:
    manifest = json.loads(members[0][1])
    manifest["files"][name] = {"sha256": "0" * 64, "size_bytes": 1}
    members[0] = (members[0][0], json.dumps(manifest).encode())
    members.append((tarfile.TarInfo(name), b"x"))


def link(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    member = tarfile.TarInfo("miopen/db/gfx1100.ufdb.txt")
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    members[1] = (member, b"")


def damage(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    members[1] = (members[1][0], b"S" + members[1][1][1:])


def leave_out(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    del members[2]


def add(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    members.append((tarfile.TarInfo("more"), b"x"))


def no_manifest(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    del members[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda members: name_in_manifest(members, "../../out"), "leads out"),
        (lambda members: name_in_manifest(members, "/etc/out"), "leads out"),
        (lambda members: name_in_manifest(members, "a/../../out"), "leads out"),
        (link, "not a file that its manifest names"),
        (damage, "checksum"),
        (leave_out, "missing"),
        (add, "not a file that its manifest names"),
        (no_manifest, "manifest"),
    ],
)
def test_an_export_that_was_tampered_with_changes_nothing(
    export: Path, tmp_path: Path, change: Callable[..., None], words: str
) -> None:
    rewrite(export, change)
    other = host(tmp_path / "other")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CacheFileError, match=words):
        import_cache(other, export)
    assert sorted(tmp_path.rglob("*")) == before


def test_half_an_export_is_refused(
    export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export.write_bytes(export.read_bytes()[:3000])
    other = host(tmp_path / "other")
    assert run_import(other, export, replace=False) == 1
    assert "rockiln: " in capsys.readouterr().err
    assert kernels(other) == {}


def test_a_host_without_a_key_says_what_to_do(export: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    with pytest.raises(CacheFileError, match="start the service once"):
        import_cache(tmp_path / "new", export)


def test_a_folder_is_readable_and_no_two_keys_share_one() -> None:
    assert KEY.folder.startswith("gfx1100-rocm7.2.4-torch2.9.1+rocm7.2.4-")
    assert KEY.folder != replace(KEY, image="sha256:bb").folder
