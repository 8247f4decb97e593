"""A host on one release of the catalogue: packages, images, records and the picture agree."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CATALOGUE = Path(
    os.environ.get("ROCKILN_TEST_CATALOGUE")
    or ROOT / "ansible/roles/rocm_catalogue/vars/main/releases.yml"
)
STATE = "/etc/rockiln/state"
PARTS = ("proxy", "api", "worker")


@pytest.fixture
def facts(host: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.file("/etc/rockiln/public/host.json").content_string)
    return found


@pytest.fixture
def release(facts: dict[str, Any]) -> str:
    """The one that was asked for; without a word, the one that the host says it has."""
    return os.environ.get("ROCKILN_TEST_RELEASE") or str(facts["release"])


@pytest.fixture
def row(release: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(CATALOGUE.read_text(encoding="utf-8"))[
        "rocm_catalogue_releases"
    ][release]
    return found


def test_host_json_names_release_and_row(
    facts: dict[str, Any], release: str, row: dict[str, Any]
) -> None:
    assert facts["release"] == release
    assert facts["row"]["torch"] == row["torch"]
    assert facts["backend"] == row["backend"]


def test_packages_of_the_host_are_the_rows(host: Any, row: dict[str, Any]) -> None:
    for name, version in row.get("packages", {}).get("container_host", {}).items():
        assert host.package(name).version == version


def test_nothing_but_the_three_containers_is_left(host: Any, facts: dict[str, Any]) -> None:
    lines = host.check_output("docker ps --all --format '{{.Names}} {{.Image}}'").splitlines()
    assert sorted(lines) == sorted(
        f"rockiln-{part} {facts['images'][part]['tag']}" for part in PARTS
    )


def test_running_worker_holds_the_rows_rocm_and_torch(
    host: Any, release: str, row: dict[str, Any]
) -> None:
    inside = "docker exec rockiln-worker "
    if row["backend"] == "rocm":
        assert host.check_output(f"{inside}cat {row['info_version_file']}").startswith(release)
    assert (
        host.check_output(
            f"{inside}/opt/venv/bin/python -c "
            "'import importlib.metadata as m; print(m.version(\"torch\"))'"
        )
        == row["torch"]["version"]
    )


def test_worker_of_rocm_alone_gets_the_device_nodes(host: Any, row: dict[str, Any]) -> None:
    settings = json.loads(host.check_output("docker inspect rockiln-worker"))[0]["HostConfig"]
    handed = [device["PathOnHost"] for device in settings["Devices"] or []]
    assert any(path.endswith("/kfd") for path in handed) == (row["backend"] == "rocm"), handed
    assert all(group.isdigit() for group in settings["GroupAdd"] or [])


def test_records_say_what_runs(host: Any, facts: dict[str, Any], release: str) -> None:
    if not host.file(f"{STATE}/pointer.json").exists:
        assert not host.file(STATE).exists  # no upgrade has been here
        return
    pointer = json.loads(host.file(f"{STATE}/pointer.json").content_string)
    record = json.loads(host.file(f"{STATE}/{pointer['current']:04}.json").content_string)
    assert pointer["upgrade"] is None
    assert record["release"] == release
    assert {part: image["tag"] for part, image in record["images"].items()} == {
        part: image["tag"] for part, image in facts["images"].items()
    }


def test_it_draws(host: Any) -> None:
    made = host.run(
        "/opt/rockiln/bin/rockiln generate 'a red boat' --seed 7 --steps 2 --output /tmp/drawn.png"
    )
    assert made.rc == 0, made.stderr
    assert host.check_output("head -c 4 /tmp/drawn.png | od -An -tx1").split() == [
        *("89", "50", "4e", "47")
    ]
