"""The vendor's packages, source, key and pin of the host, against the catalogue.

A row of the backend cpu, and a profile without packages, must have left nothing.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CATALOGUE = Path(
    os.environ.get("ROCKILN_TEST_CATALOGUE")
    or ROOT / "ansible/roles/rocm_catalogue/vars/main/releases.yml"
)
PROFILE = os.environ.get("ROCKILN_TEST_PROFILE", "container_host")
SOURCES = "/etc/apt/sources.list.d/rockiln-rocm.sources"
KEY = "/etc/apt/keyrings/rockiln-rocm.gpg"


@pytest.fixture(scope="session")
def releases() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(CATALOGUE.read_text(encoding="utf-8"))[
        "rocm_catalogue_releases"
    ]
    return found


@pytest.fixture
def release(host: Any) -> str:
    """The one that was asked for; without a word, the one that the host says it has."""
    named = os.environ.get("ROCKILN_TEST_RELEASE")
    if named:
        return named
    return str(json.loads(host.file("/etc/rockiln/public/host.json").content_string)["release"])


@pytest.fixture
def wanted(releases: dict[str, dict[str, Any]], release: str) -> dict[str, str | None]:
    """Version by name; nothing for the cpu."""
    row = releases.get(release, {})
    if row.get("backend") != "rocm":
        return {}
    found: dict[str, str | None] = row["packages"].get(PROFILE) or {}
    return found


def installed(host: Any) -> dict[str, str]:
    """Version by name of what is installed, held or not."""
    listed = host.check_output(
        "dpkg-query --show --showformat '${Package} ${Version} ${db:Status-Status}\\n'"
    )
    rows = (line.split() for line in listed.splitlines())
    return {words[0]: words[1] for words in rows if words[-1] == "installed"}


def named_anywhere(releases: dict[str, dict[str, Any]]) -> set[str]:
    """Packages that any row names."""
    return {
        name
        for row in releases.values()
        for profile in (row.get("packages") or {}).values()
        for name in profile or {}
    }


def test_wanted_packages_are_there_in_exactly_these_versions(
    host: Any, wanted: dict[str, str | None]
) -> None:
    found = installed(host)
    assert {name: found.get(name) for name in wanted} == {
        name: version or found.get(name) for name, version in wanted.items()
    }
    assert [name for name in wanted if name not in found] == []


def test_no_package_of_another_release_is_left(
    host: Any, releases: dict[str, dict[str, Any]], wanted: dict[str, str | None]
) -> None:
    found = installed(host)  # where the row leaves a version open
    versions = [version or found[name] for name, version in wanted.items()]
    stamps = {re.sub(r"^.*\.(\d{5}-\d+)~.*$", r"\1", version) for version in versions}
    strangers = {
        name: version
        for name, version in found.items()
        if re.search(r"\.\d{5}-\d+~\d\d\.\d\d$", version)
        and re.sub(r"^.*\.(\d{5}-\d+)~.*$", r"\1", version) not in stamps
    }
    assert strangers == {}
    assert wanted or not named_anywhere(releases) & set(found)


def test_wanted_packages_are_held(host: Any, wanted: dict[str, str | None]) -> None:
    held = set(host.check_output("apt-mark showhold").split())
    assert set(wanted) <= held
    assert wanted or not held


def test_apt_prefers_the_vendors_version_by_the_rows_pin(
    host: Any, releases: dict[str, dict[str, Any]], release: str, wanted: dict[str, str | None]
) -> None:
    for name, version in wanted.items():
        policy = host.check_output("apt-cache policy %s", name)
        candidate = re.search(r"^  Candidate: (\S+)$", policy, flags=re.MULTILINE)
        assert candidate, policy
        assert candidate[1] == (version or candidate[1])
        priority = releases[release]["apt"]["pin"]["priority"]
        assert re.search(rf"^ \*\*\* {re.escape(candidate[1])} {priority}$", policy, re.MULTILINE)


def test_source_names_the_rows_repositories_and_their_key(
    host: Any, releases: dict[str, dict[str, Any]], release: str, wanted: dict[str, str | None]
) -> None:
    file = host.file(SOURCES)
    if not wanted:
        assert not file.exists
        return
    apt = releases[release]["apt"]
    uris = [apt["repository"]["uri"]] + ([apt["graphics"]["uri"]] if apt["graphics"] else [])
    text = file.content_string
    assert re.findall(r"^URIs: (\S+)$", text, flags=re.MULTILINE) == uris
    assert re.findall(r"^Signed-By: (\S+)$", text, flags=re.MULTILINE) == [KEY] * len(uris)
    assert (file.user, file.group, file.mode) == ("root", "root", 0o644)


def test_keyring_holds_the_pinned_key_alone(
    host: Any, releases: dict[str, dict[str, Any]], release: str, wanted: dict[str, str | None]
) -> None:
    file = host.file(KEY)
    if not wanted:
        assert not file.exists
        return
    shown = subprocess.run(
        ["gpg", "--show-keys", "--with-colons"], input=file.content, check=True, capture_output=True
    ).stdout.decode()
    primary = re.findall(r"^pub:.*\n(?:fpr:+([0-9A-F]{40}):)", shown, flags=re.MULTILINE)
    assert primary == [releases[release]["apt"]["key"]["fingerprint"]]


def test_version_file_says_the_release(
    host: Any, releases: dict[str, dict[str, Any]], release: str, wanted: dict[str, str | None]
) -> None:
    files = {row["info_version_file"] for row in releases.values() if "info_version_file" in row}
    there = {
        name: host.file(name).content_string.strip() for name in files if host.file(name).exists
    }
    expected = {releases[release]["info_version_file"]: release} if wanted else {}
    assert there == expected
