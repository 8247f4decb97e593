"""Certificates made by openssl for one test."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple


class Pair(NamedTuple):
    """Files in PEM form."""

    certificate: Path
    key: Path


def make_pair(
    folder: Path, name: str = "server", *, days: int = 30, use: str = "", authority: bool = False
) -> Pair:
    """A self-signed certificate for localhost and 127.0.0.1.

    Args:
        days: until it expires; a negative number is of the past.
        authority: whether it may sign others.
        use: its extended key usage, such as clientAuth; any if left out.
    """
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    extensions = ["subjectAltName=DNS:localhost,IP:127.0.0.1"]
    extensions += [f"extendedKeyUsage={use}"] if use else []
    extensions += ["basicConstraints=critical,CA:TRUE"] if authority else []
    request = folder / f"{name}.csr"
    openssl(
        "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-keyout", str(pair.key), "-out", str(request), "-subj", "/CN=localhost",
        *(word for each in extensions for word in ("-addext", each)),
    )  # fmt: skip
    openssl(
        "x509", "-req", "-in", str(request), "-signkey", str(pair.key), "-days", str(days),
        "-copy_extensions", "copy", "-out", str(pair.certificate),
    )  # fmt: skip
    return pair


def openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=60)
