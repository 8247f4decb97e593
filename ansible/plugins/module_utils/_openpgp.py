"""PRIVATE to the collection. Which keys an OpenPGP key file holds; pure, no gpg needed.

A vendor's key is compared by fingerprint before anything trusts it, and only the key with that
fingerprint is kept: what else the file holds stays out of the host's keyring. RFC 9580 names the
packets; a version 4 fingerprint is the SHA-1 of the public key packet.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator

PUBLIC_KEY_PACKET = 6
KEY_VERSION = 4
ARMOR = re.compile(
    r"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(?:[^\r\n]+\r?\n)*\r?\n(?P<body>.*?)"
    r"-----END PGP PUBLIC KEY BLOCK-----",
    flags=re.DOTALL,
)


class KeyFileError(ValueError):
    """The bytes are not a file of public keys."""


def dearmored(data: bytes) -> bytes:
    """The binary form; what is binary already is returned as it is."""
    if data[:1] and data[0] & 0x80:
        return data
    blocks = [match["body"] for match in ARMOR.finditer(data.decode("ascii", errors="replace"))]
    if not blocks:
        raise KeyFileError("it is no OpenPGP key file")
    try:
        return b"".join(
            base64.b64decode(
                "".join(line for line in block.split() if not line.startswith("=")), validate=True
            )
            for block in blocks
        )
    except binascii.Error as error:
        raise KeyFileError(f"its armour is damaged: {error}") from error


def packets(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(tag, body, whole packet), in order."""
    place = 0
    while place < len(data):
        start, head = place, data[place]
        if not head & 0x80:
            raise KeyFileError("it is no OpenPGP key file")
        try:
            if head & 0x40:
                tag, length, place = head & 0x3F, *_new_length(data, place + 1)
            else:
                size = 1 << (head & 3)
                if size > 4:  # noqa: PLR2004 (the old format's open-ended length)
                    raise KeyFileError("it has a packet without an end")
                tag = head >> 2 & 0x0F
                length = int.from_bytes(data[place + 1 : place + 1 + size], "big")
                place += 1 + size
        except IndexError as error:
            raise KeyFileError("it is cut off") from error
        body = data[place : place + length]
        if len(body) < length:
            raise KeyFileError("it is cut off")
        place += length
        yield tag, body, data[start:place]


def _new_length(data: bytes, place: int) -> tuple[int, int]:
    """(length of the body, where it begins) of a packet in the new format."""
    first = data[place]
    if first < 192:  # noqa: PLR2004 (RFC 9580, 4.2.1)
        return first, place + 1
    if first < 224:  # noqa: PLR2004
        return ((first - 192) << 8) + data[place + 1] + 192, place + 2
    if first == 255:  # noqa: PLR2004
        return int.from_bytes(data[place + 1 : place + 5], "big"), place + 5
    raise KeyFileError("it has a packet without an end")


def keys_by_fingerprint(data: bytes) -> dict[str, bytes]:
    """Fingerprint (40 upper-case digits) → the key with its identities, signatures and subkeys."""
    found: dict[str, bytes] = {}
    current = ""
    for tag, body, whole in packets(dearmored(data)):
        if tag == PUBLIC_KEY_PACKET:
            if body[:1] != bytes([KEY_VERSION]):
                raise KeyFileError(f"it has a key of version {body[0] if body else 0}")
            digest = hashlib.sha1(  # noqa: S324 (what a version 4 fingerprint is)
                b"\x99" + len(body).to_bytes(2, "big") + body
            )
            current = digest.hexdigest().upper()
        elif not current:
            raise KeyFileError("it does not begin with a public key")
        found[current] = found.get(current, b"") + whole
    if not found:
        raise KeyFileError("it is empty")
    return found
