"""Fingerprints without gpg, compared with gpg's own."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.rockiln.host.plugins.module_utils import _openpgp as openpgp


def gpg(home: Path, *arguments: str) -> bytes:
    return subprocess.run(
        ["gpg", "--batch", "--quiet", "--homedir", str(home), *arguments],
        check=True,
        capture_output=True,
    ).stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("gnupg")
    folder.chmod(0o700)
    for name in ("One", "Two"):
        gpg(folder, "--passphrase", "", "--quick-generate-key", name, "ed25519", "sign", "never")
    yield folder
    subprocess.run(["gpgconf", "--homedir", str(folder), "--kill", "all"], check=True)


def fingerprints(home: Path) -> list[str]:
    listed = gpg(home, "--with-colons", "--list-keys").decode()
    return re.findall(r"^fpr:+([0-9A-F]{40}):", listed, flags=re.MULTILINE)


@pytest.mark.parametrize("form", [["--armor"], []])
def test_fingerprints_are_those_that_gpg_says(home: Path, form: list[str]) -> None:
    exported = gpg(home, *form, "--export")
    assert list(openpgp.keys_by_fingerprint(exported)) == fingerprints(home)


def test_one_key_is_taken_out_of_a_file_with_two(home: Path) -> None:
    wanted = fingerprints(home)[1]
    alone = openpgp.keys_by_fingerprint(gpg(home, "--export"))[wanted]
    assert list(openpgp.keys_by_fingerprint(alone)) == [wanted]
    assert alone == gpg(home, "--export", wanted)


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_damaged_file_is_refused(home: Path, cut: int) -> None:
    exported = gpg(home, "--export", fingerprints(home)[0])
    with pytest.raises(openpgp.KeyFileError):
        openpgp.keys_by_fingerprint(exported[:cut])


@pytest.mark.parametrize("data", [b"", b"<html>not found</html>", b"-----BEGIN PGP"])
def test_page_instead_of_a_key_is_refused(data: bytes) -> None:
    with pytest.raises(openpgp.KeyFileError):
        openpgp.keys_by_fingerprint(data)
