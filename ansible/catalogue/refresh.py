#!/usr/bin/env python3
"""Reads what a row leaves open from the vendor's signed index and the image registry.

    nox -s catalogue -- --release 7.2.4            show what is read and what differs
    nox -s catalogue -- --release 7.2.4 --write    also put what was open into the catalogue

An index counts only when its signature is by the key that the row names by fingerprint. A value
that a source gave and that the vendor's index now contradicts is shown and never replaced.
Exit: 0 nothing differs, 1 something does, 2 wrong command line, 3 nothing could be reached.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.rockiln.host.plugins.module_utils._openpgp import (
    KeyFileError,
    keys_by_fingerprint,
)

CATALOGUE = Path(__file__).parents[1] / "roles/rocm_catalogue/vars/main/releases.yml"
VARIABLE = "rocm_catalogue_releases"
TIMEOUT_SECONDS = 30
MANIFEST_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
EXIT_SAME, EXIT_DIFFERS, EXIT_USAGE, EXIT_UNREACHABLE = range(4)

Row = Mapping[str, Any]
Place = tuple[str, ...]


class SourceError(Exception):
    """A source cannot be reached, or what it says cannot be trusted."""


@dataclass(frozen=True)
class Reading:
    """One value as the vendor has it now, and as the row has it."""

    place: Place
    read: str
    known: str | None

    @property
    def verdict(self) -> str:
        if self.known is None:
            return "open"
        return "same" if self.known == self.read else "differs"


def fetch(url: str, headers: Mapping[str, str] | None = None) -> tuple[bytes, Mapping[str, str]]:
    """Body and headers. Raises SourceError."""
    if not url.startswith(("https://", "http://127.0.0.1:")):
        raise SourceError(f"{url}: only https is read")
    request = urllib.request.Request(url, headers=dict(headers or {}))  # noqa: S310 (checked)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
            return answer.read(), dict(answer.headers)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise SourceError(f"{url}: {getattr(error, 'reason', error)}") from error


def signed_text(signed: bytes, key: bytes) -> str:
    """What is inside a clear-signed text, if ``key`` signed it. Raises SourceError."""
    with tempfile.TemporaryDirectory() as folder:
        keyring = Path(folder, "key.gpg")
        keyring.write_bytes(key)
        message = Path(folder, "InRelease")
        message.write_bytes(signed)
        checked = subprocess.run(
            ["gpgv", "--keyring", str(keyring), "--output", "-", str(message)],
            capture_output=True,
            check=False,
        )
    if checked.returncode:
        reason = checked.stderr.decode(errors="replace").strip().splitlines()
        raise SourceError(f"the index is not signed by the row's key: {' '.join(reason[-1:])}")
    return checked.stdout.decode()


def vendor_key(key: Row) -> bytes:
    """The one key that the row names. Raises SourceError."""
    data, _ = fetch(key["url"])
    try:
        found = keys_by_fingerprint(data)
    except KeyFileError as error:
        raise SourceError(f"{key['url']}: {error}") from error
    if key["fingerprint"] not in found:
        raise SourceError(f"{key['url']} has no key {key['fingerprint']}")
    return found[key["fingerprint"]]


def newest_versions(uri: str, suite: str, component: str, key: bytes) -> dict[str, str]:
    """Package → the version that stands last in the signed index. Raises SourceError."""
    base = f"{uri.rstrip('/')}/dists/{suite}"
    release = signed_text(fetch(f"{base}/InRelease")[0], key)
    name = f"{component}/binary-amd64/Packages.gz"
    digests = {
        words[2]: words[0]
        for words in map(str.split, release.partition("SHA256:")[2].splitlines())
        if len(words) == 3  # noqa: PLR2004 (digest, size, name)
    }
    if name not in digests:
        raise SourceError(f"{base}/InRelease does not list {name}")
    packed, _ = fetch(f"{base}/{name}")
    if hashlib.sha256(packed).hexdigest() != digests[name]:
        raise SourceError(f"{base}/{name} is not what the signed index says")
    found: dict[str, str] = {}
    package = ""
    for line in gzip.decompress(packed).decode().splitlines():
        field, _, value = line.partition(": ")
        if field == "Package":
            package = value
        elif field == "Version":
            found[package] = value
    return found


def image_digest(repository: str, tag: str, registry: str) -> str:
    """Digest of a tag by the registry's API, with the anonymous token it asks for."""
    url = f"{registry}/v2/{repository}/manifests/{tag}"
    headers = {"Accept": ", ".join(MANIFEST_TYPES)}
    try:
        body, answered = fetch(url, headers)
    except SourceError as error:
        token = _token(error, repository)
        if token is None:
            raise
        body, answered = fetch(url, {**headers, "Authorization": f"Bearer {token}"})
    computed = f"sha256:{hashlib.sha256(body).hexdigest()}"
    told = {name.lower(): value for name, value in answered.items()}.get("docker-content-digest")
    if told not in (None, computed):
        raise SourceError(f"{url}: the registry says {told}, its answer is {computed}")
    return computed


def _token(error: SourceError, repository: str) -> str | None:
    cause = error.__cause__
    challenge = (
        cause.headers.get("WWW-Authenticate", "")
        if isinstance(cause, urllib.error.HTTPError)
        else ""
    )
    words = dict(
        part.strip().replace('"', "").split("=", 1)
        for part in challenge.removeprefix("Bearer ").split(",")
        if "=" in part
    )
    if "realm" not in words:
        return None
    query = f"service={words.get('service', '')}&scope=repository:{repository}:pull"
    body, _ = fetch(f"{words['realm']}?{query}")
    answer = json.loads(body)
    token: str | None = answer.get("token") or answer.get("access_token")
    return token


def read_packages(row: Row) -> Iterator[Reading]:
    """Versions of the row's packages in each suite that it names. Raises SourceError."""
    apt = row["apt"]
    key = vendor_key(apt["key"])
    suites = sorted({entry["suite"] for entry in row["host_os"] if entry["suite"]})
    for suite in suites:
        found: dict[str, str] = {}
        for component in apt["repository"]["components"]:
            found |= newest_versions(apt["repository"]["uri"], suite, component, key)
        for profile, packages in row["packages"].items():
            if profile == "source" or packages is None:
                continue
            for name, known in packages.items():
                if name not in found:
                    continue
                if isinstance(known, Mapping):
                    place: Place = ("packages", profile, name, suite)
                    yield Reading(place, found[name], known.get(suite))
                else:
                    yield Reading(("packages", profile, name), found[name], known)


def read_image(row: Row, registry: str) -> Iterator[Reading]:
    """The digest of the row's image. Raises SourceError."""
    image = row["image"]
    digest = image_digest(image["repository"], image["tag"], registry)
    yield Reading(("image", "digest"), digest, image.get("digest"))


def written(text: str, values: Mapping[Place, str]) -> str:
    """The catalogue's text with ``null`` at each place replaced; nothing else of it changes."""
    spans = []
    for place, value in values.items():
        node: Any = yaml.compose(text)
        for word in place:
            node = next(child for name, child in node.value if name.value == word)
        if node.tag != "tag:yaml.org,2002:null":
            raise ValueError(f"{'.'.join(place)} is not open")
        spans.append((node.start_mark.index, node.end_mark.index, json.dumps(value)))
    for start, end, value in sorted(spans, reverse=True):
        text = text[:start] + value + text[end:]
    return text


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--release", action="append", help="a row; all ROCm rows by default")
    parser.add_argument("--write", action="store_true", help="put what was open into the catalogue")
    parser.add_argument("--catalogue", type=Path, default=CATALOGUE)
    parser.add_argument("--registry", default="https://registry-1.docker.io")
    options = parser.parse_args(arguments)
    text = options.catalogue.read_text(encoding="utf-8")
    rows = yaml.safe_load(text)[VARIABLE]
    wanted = options.release or [name for name, row in rows.items() if row["backend"] == "rocm"]
    unknown = [name for name in wanted if name not in rows]
    if unknown:
        parser.error(f"no release {unknown[0]}; known: {', '.join(rows)}")
    readings = [
        (name, reading)
        for name in wanted
        for reading in read_row(name, rows[name], options.registry)
    ]
    if not readings:
        sys.stderr.write(
            "nothing could be read. Next: run this where the vendor's hosts can be reached.\n"
        )
        return EXIT_UNREACHABLE
    opened = {
        (VARIABLE, name, *reading.place): reading.read
        for name, reading in readings
        if reading.verdict == "open"
    }
    if options.write and opened:
        options.catalogue.write_text(written(text, opened), encoding="utf-8")
        sys.stdout.write(
            f"{len(opened)} values written; add where they come from, then nox -s contract\n"
        )
    differs = any(reading.verdict == "differs" for _, reading in readings)
    return EXIT_DIFFERS if differs else EXIT_SAME


def read_row(name: str, row: Row, registry: str) -> Iterator[Reading]:
    """Everything that can be read of a row, told as it comes; what cannot is told, too."""
    sources = []
    if row["apt"]:
        sources.append(read_packages(row))
    if row["image"]:
        sources.append(read_image(row, registry))
    for source in sources:
        try:
            for reading in source:
                sys.stdout.write(_line(name, reading))
                yield reading
        except SourceError as error:
            sys.stderr.write(f"{name}: not read: {error}\n")


def _line(name: str, reading: Reading) -> str:
    known = "" if reading.verdict != "differs" else f"   the row has {reading.known}"
    place = ".".join(reading.place)
    return f"{name}  {reading.verdict:<7}  {place} = {reading.read}{known}\n"


if __name__ == "__main__":
    sys.exit(main())
