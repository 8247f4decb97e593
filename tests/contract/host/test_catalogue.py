"""The release catalogue: its schema, its order, and everything that is derived from it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
ROLE = ROOT / "ansible/roles/rocm_catalogue"
RELEASES_FILE = ROLE / "vars/main/releases.yml"


@pytest.fixture(scope="module")
def catalogue() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(RELEASES_FILE.read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (ROLE / "files/catalogue.schema.json").read_text(encoding="utf-8")
    )
    return found


def test_catalogue_matches_its_schema(catalogue: dict[str, Any], schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(catalogue, schema)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda row: row.pop("torch"),
        lambda row: row.update(backend="cuda"),
        lambda row: row["torch"].update(version="2.13.0"),
        lambda row: row["torch"]["wheels"]["cp311"].update(sha256="0" * 63),
        lambda row: row["rootfs"].update(digest="latest"),
        lambda row: row.update(surprise=1),
    ],
)
def test_schema_refuses_what_is_not_a_row(
    catalogue: dict[str, Any], schema: dict[str, Any], spoil: Any
) -> None:
    spoiled = json.loads(json.dumps(catalogue))
    spoil(spoiled["rocm_catalogue_releases"]["cpu"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(spoiled, schema)


def test_newest_first_and_cpu_last(catalogue: dict[str, Any]) -> None:
    names = list(catalogue["rocm_catalogue_releases"])
    assert names[-1] == "cpu"
    numbers = [tuple(int(part) for part in name.split(".")) for name in names[:-1]]
    assert numbers == sorted(numbers, reverse=True)


def test_rows_agree_with_themselves(catalogue: dict[str, Any]) -> None:
    for name, row in catalogue["rocm_catalogue_releases"].items():
        torch = row["torch"]
        if row["backend"] == "rocm":
            local = None if torch is None else torch["version"].partition("+")[2]
            assert torch is None or local == (torch["local"] or ""), name
            continue
        assert torch["version"].partition("+")[2] == torch["local"], name
        tag = "cp" + row["python"].replace(".", "")
        assert tag in torch["wheels"], name
        for python, wheel in torch["wheels"].items():
            assert wheel["file"].startswith(f"torch-{torch['version']}-{python}-"), name


def test_no_version_of_the_stack_is_written_anywhere_else_of_the_host_half(
    catalogue: dict[str, Any],
) -> None:
    version = catalogue["rocm_catalogue_releases"]["cpu"]["torch"]["version"].partition("+")[0]
    files = [
        path
        for folder in ("ansible", "containers", "inventories", "molecule")
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
        and path != RELEASES_FILE
        and path.suffix not in {".md", ".pyc"}
        and path.parent.name != "locks"
    ]
    pattern = re.compile(rf"torch\D{{0,4}}{re.escape(version)}")
    assert [
        str(path)
        for path in files
        if pattern.search(path.read_text(encoding="utf-8", errors="replace"))
    ] == []


def shell(line: str) -> list[str]:
    """What the shell half reads from the catalogue, by the functions that bootstrap.sh uses."""
    parts = "".join(
        f"source {ROOT}/ansible/bootstrap/{part}.sh; " for part in ("checks", "process")
    )
    return subprocess.run(
        ["bash", "-c", f"set -eu; here={ROOT}; E_STEP=1; {parts}{line}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()


def test_shell_reads_the_same_as_yaml(catalogue: dict[str, Any]) -> None:
    releases = catalogue["rocm_catalogue_releases"]
    row = releases["cpu"]
    assert shell("catalogue_os") == [
        f"{entry['name']} {entry['version']}" for entry in row["host_os"]
    ]
    assert shell("catalogue_releases") == list(releases)
    assert shell("catalogue_value python") == [row["python"]]
    assert shell("catalogue_value index") == [row["torch"]["index"]]
    wheel = row["torch"]["wheels"]["cp" + row["python"].replace(".", "")]
    assert shell("torch_requirement") == [
        f"torch=={row['torch']['version']} --hash=sha256:{wheel['sha256']}"
    ]


def test_table_of_supported_hosts_is_the_catalogues() -> None:
    """Next command when it is not: ansible/docs/releases.py."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "ansible/docs/releases.py"), "--check"], check=False
    )
    assert done.returncode == 0
