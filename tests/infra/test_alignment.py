"""Catalogue, host and running container agree, looked at without the module that decides it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
VARS = ROOT / "ansible/roles/rocm_catalogue/vars/main"
CATALOGUE = Path(os.environ.get("ROCKILN_TEST_CATALOGUE") or VARS / "releases.yml")
Inside = Callable[[str, str], Any]
PYTHON = "/opt/venv/bin/python"


@pytest.fixture
def facts(host: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.file("/etc/rockiln/public/host.json").content_string)
    return found


@pytest.fixture
def row(facts: dict[str, Any]) -> dict[str, Any]:
    """Of the installed release; a site's own row where the catalogue has none of that name."""
    rows = yaml.safe_load(CATALOGUE.read_text(encoding="utf-8"))["rocm_catalogue_releases"]
    found: dict[str, Any] = rows.get(facts["release"], facts["row"])
    return found


def torch_constant(inside: Inside, name: str) -> str:
    """Of the torch that is installed in the running container, which need not load for that."""
    line = (
        f"{PYTHON} -c 'import importlib.util, runpy;"
        ' folder = importlib.util.find_spec("torch").submodule_search_locations[0];'
        f' print(runpy.run_path(folder + "/version.py")["{name}"])\''
    )
    return str(inside("worker", line).stdout.strip())


def test_torch_is_the_rows_to_its_local_part(inside: Inside, row: dict[str, Any]) -> None:
    version = torch_constant(inside, "__version__")
    if row["torch"]["local"] is None:
        assert version.partition("+")[0] == row["torch"]["version"].partition("+")[0]
    else:
        assert version == row["torch"]["version"]
        assert version.partition("+")[2] == row["torch"]["local"]


def test_torch_is_built_for_the_backend(inside: Inside, row: dict[str, Any]) -> None:
    assert torch_constant(inside, "cuda") == "None"
    assert (torch_constant(inside, "hip") == "None") == (row["backend"] == "cpu")


def test_rocm_of_the_container_is_the_release(
    inside: Inside, facts: dict[str, Any], row: dict[str, Any]
) -> None:
    files = "cat /opt/rocm/.info/version /opt/rocm/core/.info/version 2>/dev/null"
    held = inside("worker", files).stdout.split()
    if row["backend"] == "cpu":
        assert held == []
        return
    assert inside("worker", f"cat {row['info_version_file']}").rc == 0
    assert {re.split(r"[-+~]", version)[0] for version in held} == {facts["release"]}


def test_one_hip_runtime(inside: Inside, row: dict[str, Any]) -> None:
    line = (
        "find /opt /usr/lib -name 'libamdhip64.so.[0-9]*' -type f 2>/dev/null"
        " | sed -E 's/.*libamdhip64[.]so[.]([0-9]+).*/\\1/' | sort -u"
    )
    majors = inside("worker", line).stdout.split()
    assert len(majors) <= 1
    if majors:
        assert torch_constant(inside, "hip").startswith(f"{majors[0]}.")


def test_driver_is_inside_the_window(host: Any, row: dict[str, Any]) -> None:
    version = host.file("/sys/module/amdgpu/version")
    window = (row.get("kernel_driver") or {}).get("window")
    if not window or not version.exists:
        return
    drivers = yaml.safe_load((VARS / "drivers.yml").read_text(encoding="utf-8"))
    lines = [
        line
        for line, known in drivers["rocm_catalogue_drivers"].items()
        if version.content_string.strip() in known["modules"]
    ]
    series = window.get("series") or [window["oldest"], window["newest"]]
    assert lines == [] or lines[0] in [str(each).removesuffix(".x") for each in series]


def test_no_variable_of_the_engine_is_one_that_does_nothing(inside: Inside) -> None:
    names = inside("worker", "env | cut -d= -f1; cat /etc/rockiln/public/settings.toml").stdout
    assert not re.search(
        r"MIOPEN_FIND_TIME_LIMIT|MIOPEN_CACHE_DIR|GPU_MAX_ALLOC_PERCENT|AMDGPU_VISIBLE_DEVICES",
        names,
    )


def test_running_image_is_the_recorded_one(host: Any, facts: dict[str, Any]) -> None:
    running = host.check_output("docker container inspect --format {{.Image}} rockiln-worker")
    assert facts["images"]["worker"]["digest"] == running


def test_the_card_is_the_chosen_one_of_the_kernel(host: Any, facts: dict[str, Any]) -> None:
    nodes = "/sys/class/kfd/kfd/topology/nodes/*/properties"
    targets = host.run(f"grep -h '^gfx_target_version [1-9]' {nodes}").stdout.splitlines()
    assert len((facts["gpu"] or {"gpus": []})["gpus"]) == len(targets)


def test_the_doctor_has_nothing_to_say_of_alignment(host: Any) -> None:
    told = json.loads(host.run("/opt/rockiln/bin/rockiln doctor --json").stdout)
    assert [each for each in told["findings"] if each["id"].startswith("alignment.")] == []
    assert len(told["facts"]) >= 30
