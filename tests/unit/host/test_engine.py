"""Which client is used to talk to the container engine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.rockiln.host.plugins.module_utils._engine import (
    Client,
    Completed,
    buildkit_kind,
    client_candidates,
    find_client,
    pick_client,
)


def client(
    path: str, client_version: str, *, server_version: str = "20.10.24", buildkit: str = "builtin"
) -> Client:
    return Client(
        path=path, client_version=client_version, server_version=server_version, buildkit=buildkit
    )


@pytest.mark.parametrize(
    ("version", "buildx", "kind"),
    [
        ("20.10.24+dfsg1", False, "builtin"),
        ("19.03.15", False, "builtin"),
        ("23.0.0", False, "none"),
        ("28.2.2", False, "none"),
        ("28.2.2", True, "buildx"),
        ("dev", False, "none"),
    ],
)
def test_how_a_client_builds(version: str, buildx: bool, kind: str) -> None:
    assert buildkit_kind(version, buildx_answers=buildx) == kind


def test_a_newer_client_that_cannot_build_loses_although_it_is_first_on_the_path() -> None:
    newer = client("/usr/local/bin/docker", "28.2.2", buildkit="none")
    own = client("/usr/bin/docker", "20.10.24")
    assert pick_client([newer, own]) == own


def test_the_daemons_own_version_wins_among_those_that_build() -> None:
    other = client("/opt/docker", "19.03.15")
    own = client("/usr/bin/docker", "20.10.24")
    assert pick_client([other, own]) == own


def test_none_when_no_client_reaches_a_daemon() -> None:
    assert pick_client([]) is None


def test_candidates_name_each_real_file_once(tmp_path: Path) -> None:
    real = tmp_path / "a" / "docker"
    real.parent.mkdir()
    real.touch(mode=0o755)
    link = tmp_path / "b" / "docker"
    link.parent.mkdir()
    link.symlink_to(real)
    found = client_candidates(f"{real.parent}:{link.parent}:{tmp_path / 'absent'}")
    assert [path for path in found if path.startswith(str(tmp_path))] == [str(real)]


def test_a_client_without_a_daemon_is_passed_over(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "docker").touch(mode=0o755)

    def run(arguments: Sequence[str]) -> Completed:
        if "second" not in arguments[0]:
            return Completed(code=1, output="", errors="Cannot connect to the Docker daemon")
        if "version" in arguments and "--format" in arguments:
            versions = {"Client": {"Version": "20.10.24"}, "Server": {"Version": "20.10.24"}}
            return Completed(code=0, output=json.dumps(versions), errors="")
        return Completed(code=1 if "buildx" in arguments else 0, output="1\n", errors="")

    found = find_client(f"{tmp_path / 'first'}:{tmp_path / 'second'}", run)
    assert found is not None
    assert (found.path, found.buildkit, found.cgroup_version) == (
        str(tmp_path / "second" / "docker"),
        "builtin",
        "1",
    )
