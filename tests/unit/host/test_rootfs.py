"""A registry that does not answer is not one that refuses."""

from __future__ import annotations

import pytest
from ansible_collections.rockiln.host.plugins.module_utils._rootfs import Rootfs, registry_is_silent


@pytest.mark.parametrize(
    "message",
    [
        'Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry.example: no such host',
        'Get "https://registry-1.docker.io/v2/": dial tcp 10.0.0.1:443: connection refused',
        'Get "https://registry-1.docker.io/v2/": net/http: TLS handshake timeout',
        'Get "https://registry-1.docker.io/v2/": x509: certificate signed by unknown authority',
        "dial tcp 10.0.0.1:443: i/o timeout",
    ],
)
def test_silence(message: str) -> None:
    assert registry_is_silent(message)


@pytest.mark.parametrize(
    "message",
    [
        "manifest for debian@sha256:00 not found: manifest unknown",
        "toomanyrequests: You have reached your pull rate limit",
        "denied: requested access to the resource is denied",
    ],
)
def test_refusal(message: str) -> None:
    assert not registry_is_silent(message)


def test_a_pinned_digest_is_what_is_pulled_and_what_counts() -> None:
    digest = "sha256:" + "0" * 64
    pinned = Rootfs(suite="bookworm", image="docker.io/library/debian", digest=digest)
    assert pinned.remote == f"docker.io/library/debian@{digest}"
    assert pinned.key == digest
    unpinned = Rootfs(suite="bookworm", image="docker.io/library/debian", digest="")
    assert unpinned.remote == "docker.io/library/debian:bookworm-slim"
    assert unpinned.key == "bookworm"
