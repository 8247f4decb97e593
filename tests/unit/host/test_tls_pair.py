"""A certificate is judged by serving it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.rockiln.host.plugins.module_utils._tls_pair import TlsPairError, judge

from support.certificates import Pair, make_pair, openssl


def test_a_good_pair_tells_its_names_and_its_end(tmp_path: Path) -> None:
    found = judge(*make_pair(tmp_path))
    assert found["names"] == ["localhost", "127.0.0.1"]
    assert found["not_after"].endswith(" GMT")


def test_a_leaf_with_its_chain_is_judged_without_its_root(tmp_path: Path) -> None:
    authority = make_pair(tmp_path, "authority", authority=True)
    key, leaf = tmp_path / "leaf.key", tmp_path / "leaf.pem"
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out",
            str(tmp_path / "leaf.csr"), "-subj", "/CN=kiln.example")  # fmt: skip
    openssl("x509", "-req", "-in", str(tmp_path / "leaf.csr"), "-CA", str(authority.certificate),
            "-CAkey", str(authority.key), "-days", "9", "-out", str(leaf))  # fmt: skip
    leaf.write_text(leaf.read_text() + authority.certificate.read_text())
    assert judge(leaf, key)["names"] == []


def other_key(folder: Path) -> Pair:
    return Pair(make_pair(folder).certificate, make_pair(folder, "other").key)


def encrypted(folder: Path) -> Pair:
    pair = make_pair(folder)
    openssl("ec", "-in", str(pair.key), "-aes256", "-passout", "pass:x", "-out", str(folder / "e"))
    return Pair(pair.certificate, folder / "e")


def no_pem(folder: Path) -> Pair:
    pair = make_pair(folder)
    pair.certificate.write_bytes(b"\x00 no certificate")
    return pair


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: Pair(folder / "no.pem", folder / "no.key"), "cannot be read: No such file"),
        (lambda folder: Pair(folder, folder), "cannot be read: Is a directory"),
        (other_key, "other.key is not the key of"),
        (encrypted, "is encrypted"),
        (no_pem, "in PEM form"),
        (lambda folder: make_pair(folder, days=-1), "certificate has expired"),
        (lambda folder: make_pair(folder, use="clientAuth"), "purpose"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_reason(
    tmp_path: Path, make: Callable[[Path], Pair], words: str
) -> None:
    with pytest.raises(TlsPairError, match=words):
        judge(*make(tmp_path))
