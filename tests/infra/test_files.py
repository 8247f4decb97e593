"""Folders and files of the host, their owners and modes."""

from __future__ import annotations

import json
from typing import Any

import pytest


@pytest.mark.parametrize("name", ["store", "artefacts", "models", "cache"])
def test_folders_of_the_service_belong_to_it(host: Any, name: str) -> None:
    folder = host.file(f"/var/lib/rockiln/{name}")
    assert (folder.uid, folder.gid, folder.mode) == (10001, 10001, 0o750)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/rockiln/public/settings.toml",
        "/etc/rockiln/public/host.json",
        "/etc/rockiln/proxy/nginx.conf",
    ],
)
def test_configuration_is_roots_and_readable(host: Any, path: str) -> None:
    file = host.file(path)
    assert (file.user, file.group, file.mode) == ("root", "root", 0o644)


def test_host_json_says_what_is_here(host: Any, catalogue_row: dict[str, Any]) -> None:
    facts = json.loads(host.file("/etc/rockiln/public/host.json").content_string)
    assert facts["schema"] == 1
    assert facts["release"] == facts["backend"] == "cpu"
    assert facts["torch"]["version"] == catalogue_row["torch"]["version"]
    assert facts["runtime"] == "docker"
    assert facts["host"]["kernel"] == host.check_output("uname -r")


def test_command_of_the_host_has_no_torch(host: Any) -> None:
    assert host.run("/opt/rockiln/bin/rockiln version").rc == 0
    assert host.run("/opt/rockiln/venv/bin/python -c 'import torch'").rc != 0


def test_first_picture_is_a_png(host: Any) -> None:
    assert host.check_output(
        "head -c 8 /var/lib/rockiln/first-picture.png | od -An -tx1"
    ).split() == [*("89", "50", "4e", "47", "0d", "0a", "1a", "0a")]


def test_demo_model_is_installed_and_readable_by_the_worker(host: Any) -> None:
    assert (
        host.run("docker exec rockiln-worker cat /var/lib/rockiln/models/vista/model_index.json").rc
        == 0
    )
