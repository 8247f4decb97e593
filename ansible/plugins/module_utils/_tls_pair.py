"""PRIVATE to the collection. A certificate and its key, judged by using them in memory.

The standard library alone, so that a host needs neither openssl nor cryptography.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

# ssl.VERIFY_X509_PARTIAL_CHAIN: the certificate itself is what is trusted, whoever signed it.
PARTIAL_CHAIN = 0x80000
# A handshake is done after this many turns of both sides, or never.
TURNS = 10


class TlsPairError(Exception):
    """They cannot be served; the message says why."""


def judge(certificate: Path, key: Path) -> dict[str, Any]:
    """What the certificate is for, and until when.

    Returns:
        ``names`` (DNS names and addresses) and ``not_after`` (as OpenSSL writes it, GMT).

    Raises:
        TlsPairError: a file is missing or no PEM, the key is encrypted or another certificate's,
            or the certificate has expired, is not valid yet or not for servers.
    """
    for path in (certificate, key):
        try:
            path.read_bytes()
        except OSError as error:
            raise TlsPairError(f"{path} cannot be read: {error.strerror}") from error
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.minimum_version = ssl.TLSVersion.TLSv1_2
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= PARTIAL_CHAIN

    def refuse_password() -> str:
        raise TlsPairError(f"{key} is encrypted, and the proxy has nobody to ask for its password")

    try:
        server.load_cert_chain(certificate, key, password=refuse_password)
        client.load_verify_locations(cafile=certificate)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsPairError(f"{key} is not the key of {certificate}") from error
        raise TlsPairError(
            f"{certificate} and {key} are no certificate and key in PEM form that can be served "
            f"({error.reason or error})"
        ) from error
    try:
        told = _shake_hands(server, client)
    except ssl.SSLCertVerificationError as error:
        raise TlsPairError(f"{certificate}: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise TlsPairError(f"{certificate} cannot be served: {error.reason or error}") from error
    return {
        "names": [str(name) for _, name in told.get("subjectAltName", ())],
        "not_after": told["notAfter"],
    }


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, Any]:
    """The served certificate as the client reads it. Raises SSLError."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(back, there),
        server.wrap_bio(there, back, server_side=True),
    )
    for _ in range(TURNS):
        waiting = 0
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                waiting += 1
        if not waiting:
            return dict(ends[0].getpeercert() or {})
    raise ssl.SSLError("the handshake does not end")
