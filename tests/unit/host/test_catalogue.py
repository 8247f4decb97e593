"""Which release fits a host: decided on the true catalogue and on rows made for the question."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.rockiln.host.plugins.module_utils import _catalogue as catalogue

ROOT = Path(__file__).resolve().parents[3]
VARS = ROOT / "ansible/roles/rocm_catalogue/vars/main"
RELEASES: dict[str, dict[str, Any]] = yaml.safe_load((VARS / "releases.yml").read_text())[
    "rocm_catalogue_releases"
]
DRIVERS: dict[str, dict[str, Any]] = yaml.safe_load((VARS / "drivers.yml").read_text())[
    "rocm_catalogue_drivers"
]


def host(os: str, gfx: str, driver_line: str = "") -> dict[str, str]:
    name, _, version = os.partition(" ")
    return {"os": name, "os_version": version, "gfx": gfx, "driver_line": driver_line}


def test_three_rows_are_pinned() -> None:
    assert [name for name, row in RELEASES.items() if catalogue.state(row) == "pinned"] == [
        "10.0.0",
        "7.2.4",
        "6.4.2",
    ]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (host("debian 12", ""), "cpu"),
        (host("debian 12", "gfx1100"), "10.0.0"),
        # 10.0 is outside of what a 6.4 driver goes with; 7.2.4 is the newest pinned row inside.
        (host("ubuntu 24.04", "gfx1100", "6.4"), "7.2.4"),
        (host("ubuntu 24.04", "gfx1201", "6.2"), "6.4.2"),
        # An older Vega that no selectable row lists.
        (host("ubuntu 22.04", "gfx906"), "cpu"),
        (host("ubuntu 20.04", "gfx1030"), "cpu"),
    ],
)
def test_auto_takes_the_newest_pinned_row_that_fits(wanted: dict[str, str], found: str) -> None:
    assert catalogue.select_release(RELEASES, wanted) == found


def test_pinned_row_goes_before_a_newer_one_that_must_be_locked() -> None:
    newest = next(iter(RELEASES))
    assert catalogue.state(RELEASES[newest]) == "to be locked"
    assert catalogue.select_release(RELEASES, host("ubuntu 24.04", "gfx1100")) != newest


def test_preview_is_never_taken_by_itself_though_its_number_is_higher() -> None:
    rows = {"7.13.0": copy.deepcopy(RELEASES["7.2.4"]), "7.2.4": RELEASES["7.2.4"]}
    rows["7.13.0"]["line"] = "preview"
    assert catalogue.select_release(rows, host("debian 12", "gfx1100")) == "7.2.4"


def test_misfits_name_every_reason() -> None:
    reasons = catalogue.misfits("7.2.4", RELEASES["7.2.4"], host("ubuntu 20.04", "gfx906", "6.2"))
    assert len(reasons) == 3
    assert "it is for ubuntu 24.04" in reasons[0]
    assert "no kernels for gfx906" in reasons[1]
    assert "6.4 to 31.50, and 6.2 is loaded" in reasons[2]


def test_target_with_an_override_fits_where_the_image_lacks_it() -> None:
    row = RELEASES["7.2.4"]
    assert "gfx1031" not in row["gfx"]
    assert row["hsa_override"]["gfx1031"] == "10.3.0"
    assert catalogue.misfits("7.2.4", row, host("debian 12", "gfx1031")) == []


def test_override_is_never_given_for_a_target_that_the_image_has() -> None:
    assert [
        (name, gfx)
        for name, row in RELEASES.items()
        if name != "cpu"
        for gfx in row["hsa_override"]
        if gfx in row["gfx"]
    ] == []


def test_old_python_and_old_torch_are_said() -> None:
    assert "Python 3.10" in catalogue.not_selectable(RELEASES["6.1.0"])[0]
    assert "torch 2.4.0" in catalogue.not_selectable(RELEASES["6.3.3"])[0]


def test_lock_fills_gaps_and_replaces_nothing() -> None:
    row = RELEASES["7.2.4"]
    locked = {
        "image": {"digest": "sha256:other"},
        "packages": {"full": {"rocm": {"jammy": "7.2.4.70204-93~22.04"}}},
    }
    merged = catalogue.with_lock(row, locked)
    assert merged["image"]["digest"] == row["image"]["digest"]
    assert merged["packages"]["full"]["rocm"] == {"jammy": "7.2.4.70204-93~22.04"}
    assert row["packages"]["full"]["rocm"] is None


def test_packages_of_one_host() -> None:
    named = {"rocminfo": {"jammy": "1~22.04", "noble": "1~24.04"}, "amdrocm10.0-{gfx}": "10.0.0-4"}
    assert catalogue.host_packages(named, "noble", "gfx1100") == {
        "rocminfo": "1~24.04",
        "amdrocm10.0-gfx1100": "10.0.0-4",
    }
    assert catalogue.host_packages(named, "focal", "") == {
        "rocminfo": None,
        "amdrocm10.0": "10.0.0-4",
    }


def test_module_version_is_not_the_line_of_the_driver() -> None:
    assert catalogue.driver_line("6.16.13", DRIVERS) == "30.30"
    assert catalogue.driver_line("30.30", DRIVERS) == ""
