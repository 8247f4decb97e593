"""Every value of the catalogue stands beside its source; what has none is absent or null."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
RELEASES: dict[str, dict[str, Any]] = yaml.safe_load(
    (ROOT / "ansible/roles/rocm_catalogue/vars/main/releases.yml").read_text(encoding="utf-8")
)["rocm_catalogue_releases"]
VENDORS = [name for name, row in RELEASES.items() if row["backend"] == "rocm"]
# Parts that carry a `source` of their own; the others are named in the row's `sources`.
OWN_SOURCE = (
    ("apt", "repository"),
    ("apt", "key"),
    ("apt", "pin"),
    ("packages",),
    ("kernel_driver", "repository"),
    ("kernel_driver", "window"),
    ("image",),
)
NAMED = ("host_os", "prefix", "info_version_file", "gfx", "hsa_override", "python", "torch")


def at(row: Mapping[str, Any], place: tuple[str, ...]) -> Any:
    value: Any = row
    for key in place:
        value = (value or {}).get(key)
    return value


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    else:
        yield value


@pytest.mark.parametrize("name", VENDORS)
def test_every_value_has_a_source(name: str) -> None:
    row = RELEASES[name]
    missing = [
        ".".join(place)
        for place in OWN_SOURCE
        if any(leaf is not None for leaf in leaves(at(row, place)))
        and not at(row, place).get("source")
    ]
    driver = row["kernel_driver"]
    # The name of the package stands in the repository's source; a version needs its own.
    if driver["dkms"] and not (
        driver["dkms"].get("source")
        or (
            driver["dkms"]["version"] is None
            and (driver["repository"] or row["apt"]["graphics"])["source"]
        )
    ):
        missing.append("kernel_driver.dkms")
    missing += [key for key in NAMED if row[key] and not row["sources"].get(key)]
    for key in ("environment", "known_bad"):
        entries = row[key].values() if isinstance(row[key], Mapping) else row[key]
        missing += [key for entry in entries if not entry["source"]]
    assert missing == []
    assert row["source"]


@pytest.mark.parametrize("name", VENDORS)
def test_sources_name_only_what_the_row_has(name: str) -> None:
    row = RELEASES[name]
    assert [key for key in row["sources"] if not at(row, tuple(key.split(".")))] == []


@pytest.mark.parametrize("name", VENDORS)
def test_version_composed_of_parts_says_of_which(name: str) -> None:
    row = RELEASES[name]
    composed = any(
        isinstance(version, Mapping) for version in row["packages"]["container_host"].values()
    )
    assert composed == ("packages.container_host" in row["sources"])


def test_digest_belongs_to_a_sourced_tag() -> None:
    for name in VENDORS:
        image = RELEASES[name]["image"]
        if image and image["digest"]:
            assert image["evidence"] in {"official", "third-party"}, name
