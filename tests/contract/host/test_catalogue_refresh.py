"""The catalogue's refresh against an index of real packages, signed here, and a registry's API."""

from __future__ import annotations

import hashlib
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
REFRESH = ROOT / "ansible/catalogue/refresh.py"
BUILD = ROOT / "tests/fixtures/apt/build.py"
FIXTURE = ROOT / "tests/fixtures/catalogue/releases.yml"
VARIABLE = "rocm_catalogue_releases"
RELEASE = "6.4.2"
MANIFEST = json.dumps({"schemaVersion": 2}).encode()
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"


class Vendor(http.server.SimpleHTTPRequestHandler):
    """An apt repository, and a registry that wants an anonymous token first."""

    def do_GET(self) -> None:
        if self.path.startswith("/token"):
            self._answer(200, json.dumps({"token": "anonymous"}).encode())
        elif not self.path.startswith("/v2/"):
            super().do_GET()
        elif self.headers.get("Authorization") == "Bearer anonymous":
            self._answer(200, MANIFEST, {"Docker-Content-Digest": DIGEST})
        else:
            host = self.headers["Host"]
            challenge = f'Bearer realm="http://{host}/token",service="here"'
            self._answer(401, b"", {"WWW-Authenticate": challenge})

    def log_message(self, *_: object) -> None:
        """Nothing: the test's output is the tool's."""

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@dataclass
class Site:
    """A served vendor and a catalogue that points to it."""

    folder: Path
    url: str

    @property
    def catalogue(self) -> Path:
        return self.folder / "catalogue.yml"

    def rows(self) -> dict[str, Any]:
        rows: dict[str, Any] = yaml.safe_load(self.catalogue.read_text())[VARIABLE]
        return rows

    def change(self, **changes: Any) -> None:
        """Rewrites the row; ``image={...}`` and so on."""
        rows = self.rows()
        for part, values in changes.items():
            rows[RELEASE][part] = {**rows[RELEASE][part], **values}
        self.catalogue.write_text(yaml.safe_dump({VARIABLE: rows}, sort_keys=False))

    def refresh(self, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(REFRESH), "--catalogue", str(self.catalogue),
             "--registry", self.url, "--release", RELEASE, *options],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "ansible/collections")},
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Built once; served to the end of the module."""
    folder = tmp_path_factory.mktemp("vendor") / "out"
    (folder / "www").mkdir(parents=True)
    serve = partial(Vendor, directory=str(folder / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        subprocess.run(
            [sys.executable, str(BUILD), "--catalogue", str(FIXTURE), "--url", url,
             "--out", str(folder)],
            check=True,
            capture_output=True,
        )  # fmt: skip
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Site(folder, url)
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def site(published: Site) -> Iterator[Site]:
    """The served vendor, with a catalogue that the test may change."""
    before = published.catalogue.read_bytes()
    yield published
    published.catalogue.write_bytes(before)


def test_a_row_that_says_what_the_vendor_says_is_the_same(site: Site) -> None:
    site.change(image={"digest": DIGEST})
    ran = site.refresh()
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "same     image.digest" in ran.stdout
    assert "differs" not in ran.stdout


def test_what_is_open_is_read_and_written_and_nothing_else_changes(site: Site) -> None:
    rows = site.rows()
    names = rows[RELEASE]["packages"]["container_host"]
    known = dict(names)
    opened = dict.fromkeys(names)
    site.change(packages={"container_host": opened}, image={"digest": None})
    text = site.catalogue.read_text()
    shown = site.refresh()
    assert shown.returncode == 0
    assert site.catalogue.read_text() == text, "showing writes nothing"
    written = site.refresh("--write")
    assert written.returncode == 0, written.stderr
    row = site.rows()[RELEASE]
    assert row["image"]["digest"] == DIGEST
    suites = [version if isinstance(version, dict) else {"": version} for version in known.values()]
    read = list(row["packages"]["container_host"].values())
    assert all(value in one.values() for value, one in zip(read, suites, strict=True))
    changed = [
        line
        for line, before in zip(
            site.catalogue.read_text().splitlines(), text.splitlines(), strict=True
        )
        if line != before
    ]
    assert len(changed) == len(known) + 1


def test_what_contradicts_a_source_is_shown_and_never_replaced(site: Site) -> None:
    site.change(image={"digest": "sha256:" + "0" * 64})
    text = site.catalogue.read_text()
    ran = site.refresh("--write")
    assert ran.returncode == 1
    assert f"differs  image.digest = {DIGEST}" in ran.stdout
    assert site.catalogue.read_text() == text


def test_an_index_signed_by_another_key_counts_for_nothing(site: Site) -> None:
    apt = site.rows()[RELEASE]["apt"]
    foreign = (site.folder / "www/foreign.fingerprint").read_text()
    key = {"url": f"{site.url}/foreign.asc", "fingerprint": foreign}
    site.change(apt={"key": {**apt["key"], **key}})
    ran = site.refresh()
    assert "is not signed by the row's key" in ran.stderr
    assert "packages." not in ran.stdout


def test_a_key_without_the_rows_fingerprint_is_refused(site: Site) -> None:
    apt = site.rows()[RELEASE]["apt"]
    site.change(apt={"key": {**apt["key"], "fingerprint": "A" * 40}})
    assert f"has no key {'A' * 40}" in site.refresh().stderr


def test_without_a_network_it_says_so_and_what_to_do(site: Site) -> None:
    apt = site.rows()[RELEASE]["apt"]
    site.change(apt={"key": {**apt["key"], "url": "http://127.0.0.1:1/key"}})
    ran = site.refresh("--registry", "http://127.0.0.1:1")
    assert ran.returncode == 3
    assert "Next: run this where the vendor's hosts can be reached." in ran.stderr


def test_an_unknown_release_is_a_wrong_command_line(site: Site) -> None:
    ran = site.refresh("--release", "5.7")
    assert (ran.returncode, "no release 5.7" in ran.stderr) == (2, True)
