"""`auto` on many hosts: what holds for every host, and cards that people have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.rockiln.host.plugins.module_utils import _catalogue as catalogue
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[3]
VARS = ROOT / "ansible/roles/rocm_catalogue/vars/main"
RELEASES: dict[str, dict[str, Any]] = yaml.safe_load((VARS / "releases.yml").read_text())[
    "rocm_catalogue_releases"
]
DRIVERS: dict[str, dict[str, Any]] = yaml.safe_load((VARS / "drivers.yml").read_text())[
    "rocm_catalogue_drivers"
]
SYSTEMS = sorted(
    {(entry["name"], entry["version"]) for row in RELEASES.values() for entry in row["host_os"]}
)
TARGETS = sorted({gfx for row in RELEASES.values() for gfx in row["gfx"]} | {"gfx906", "gfx1031"})

KERNELS = ["", "5.15.0-1-generic", "6.1.0-9-amd64", "6.8.0-60-generic", "6.17.0-5-generic", "7.0.1"]

hosts = st.builds(
    lambda system, gfx, line, kernel, dkms: {
        "os": system[0],
        "os_version": system[1],
        "gfx": gfx,
        "driver_line": line,
        "kernel": kernel,
        "dkms": dkms,
    },
    st.sampled_from([*SYSTEMS, ("ubuntu", "20.04"), ("fedora", "43")]),
    st.sampled_from(["", *TARGETS]),
    st.sampled_from(["", *DRIVERS]),
    st.sampled_from(KERNELS),
    st.booleans(),
)
rows = st.sets(st.sampled_from(sorted(RELEASES)), min_size=1).map(
    lambda names: {name: RELEASES[name] for name in RELEASES if name in names | {"cpu"}}
)


@given(releases=rows, host=hosts)
def test_choice_fits_and_nothing_better_does(
    releases: dict[str, Any], host: dict[str, str]
) -> None:
    chosen = catalogue.select_release(releases, host)
    fitting = [
        name for name in releases if name != "cpu" and name not in catalogue.why_not(releases, host)
    ]
    assert [name for name in fitting if catalogue.misfits(name, releases[name], host)] == []
    if not fitting:
        assert chosen == "cpu"
        return
    assert chosen in fitting
    pinned = [name for name in fitting if catalogue.state(releases[name]) == "pinned"]
    assert chosen == max(pinned or fitting, key=catalogue.numbers)


@given(releases=rows, host=hosts)
def test_order_of_the_catalogue_decides_nothing(
    releases: dict[str, Any], host: dict[str, str]
) -> None:
    turned = dict(reversed(releases.items()))
    assert catalogue.select_release(turned, host) == catalogue.select_release(releases, host)


@given(releases=rows, host=hosts)
def test_row_that_is_not_chosen_can_go(releases: dict[str, Any], host: dict[str, str]) -> None:
    chosen = catalogue.select_release(releases, host)
    for name in set(releases) - {chosen, "cpu"}:
        rest = {other: row for other, row in releases.items() if other != name}
        assert catalogue.select_release(rest, host) == chosen


@given(host=hosts)
def test_never_a_preview_nor_a_row_that_cannot_run(host: dict[str, str]) -> None:
    row = RELEASES[catalogue.select_release(RELEASES, host)]
    assert row.get("line") != "preview"
    assert catalogue.state(row) != "not selectable"


@given(host=hosts)
def test_kernels_own_driver_is_never_a_reason(host: dict[str, str]) -> None:
    """Sourced windows are of the vendor's driver; a row refused with none is refused with it."""
    without = host | {"driver_line": ""}
    for name, row in RELEASES.items():
        assert set(catalogue.misfits(name, row, without)) <= set(catalogue.misfits(name, row, host))


@pytest.mark.parametrize(
    ("card", "seen", "chosen", "override"),
    [
        # system, gfx, version of the loaded module ("" where it is the kernel's own)
        ("RX 6700 XT", ("ubuntu 24.04", "gfx1031", ""), "10.0.0", "10.3.0"),
        ("RX 6700 XT, driver of 6.4", ("ubuntu 24.04", "gfx1031", "6.12.12"), "7.2.4", "10.3.0"),
        ("RX 6800 XT", ("debian 12", "gfx1030", ""), "10.0.0", None),
        ("RX 7900 XTX", ("ubuntu 24.04", "gfx1100", "6.16.13"), "10.0.0", None),
        ("RX 7900 XTX, driver of 6.2", ("ubuntu 22.04", "gfx1100", "6.8.5"), "6.4.2", None),
        ("RX 7600", ("ubuntu 24.04", "gfx1102", ""), "10.0.0", None),
        ("RX 7600, driver of 6.4", ("ubuntu 24.04", "gfx1102", "6.12.12"), "7.2.4", "11.0.0"),
        ("RX 9070 XT", ("ubuntu 24.04", "gfx1201", "6.14.14"), "10.0.0", None),
        ("MI300X, DKMS of 7.2", ("ubuntu 22.04", "gfx942", "6.16.13"), "10.0.0", None),
        ("MI300X, DKMS of 6.4", ("ubuntu 22.04", "gfx942", "6.12.12"), "7.2.4", None),
        ("MI210 in the kernel's own", ("debian 13", "gfx90a", ""), "10.0.0", None),
        # No row of 6.4 and no row of 7.2 has this target, and 10.0 goes with no driver of 6.4.
        ("Strix Halo, driver of 6.4", ("ubuntu 24.04", "gfx1151", "6.12.12"), "cpu", None),
        ("Strix Halo", ("ubuntu 26.04", "gfx1151", ""), "10.0.0", None),
        # A driver newer than every window: no source says that anything goes with it.
        ("RX 7900 XTX, driver 31.60", ("ubuntu 26.04", "gfx1100", "7.1.9"), "cpu", None),
        ("RX 5700 XT", ("ubuntu 24.04", "gfx1010", ""), "cpu", None),
        ("Radeon VII", ("ubuntu 24.04", "gfx906", ""), "cpu", None),
    ],
)
def test_real_cards(
    card: str, seen: tuple[str, str, str], chosen: str, override: str | None
) -> None:
    system, gfx, module = seen
    name, _, version = system.partition(" ")
    host = {
        "os": name,
        "os_version": version,
        "gfx": gfx,
        "driver_line": catalogue.driver_line(module, DRIVERS),
    }
    found = catalogue.select_release(RELEASES, host)
    assert found == chosen, card
    row = RELEASES[found]
    assert (None if gfx in row["gfx"] else row.get("hsa_override", {}).get(gfx)) == override, card


def test_newest_targets_do_not_fit_releases_before_them() -> None:
    host = {"os": "ubuntu", "os_version": "24.04", "gfx": "gfx1201", "driver_line": ""}
    row = RELEASES["6.2.0"]
    assert any("gfx1201" in reason for reason in catalogue.misfits("6.2.0", row, host))


def test_row_without_a_sourced_window_is_taken_by_name_only_beside_the_vendors_driver() -> None:
    host = {"os": "ubuntu", "os_version": "24.04", "gfx": "gfx1151", "driver_line": "6.4"}
    assert RELEASES["10.1.0"]["kernel_driver"]["window"] is None
    assert catalogue.misfits("10.1.0", RELEASES["10.1.0"], host) == []
    assert "which driver lines go with it" in catalogue.why_not(RELEASES, host)["10.1.0"][0]


def test_every_release_that_is_passed_over_says_why() -> None:
    host = {"os": "ubuntu", "os_version": "24.04", "gfx": "gfx1100", "driver_line": "30.30"}
    passed_over = catalogue.why_not(RELEASES, host)
    assert all(passed_over.values())
    assert any("preview" in reason for reason in passed_over["7.9.0"])
    assert catalogue.select_release(RELEASES, host) not in passed_over


@pytest.mark.parametrize(
    ("system", "kernel", "chosen"),
    [
        ("ubuntu 24.04", "6.8.0-60-generic", "10.0.0"),
        ("ubuntu 24.04", "6.80.0-1-generic", "7.2.4"),
        # Between the kernels that the vendor lists: 7.2.4, whose row names none.
        ("ubuntu 24.04", "6.11.0-26-generic", "7.2.4"),
        ("debian 12", "6.1.0-37-amd64", "10.0.0"),
        ("debian 12", "6.12.30+bpo-amd64", "7.2.4"),
    ],
)
def test_kernel_decides_too(system: str, kernel: str, chosen: str) -> None:
    name, _, version = system.partition(" ")
    host = {"os": name, "os_version": version, "gfx": "gfx1100", "kernel": kernel}
    assert catalogue.select_release(RELEASES, host) == chosen
    row = RELEASES["10.0.0"]
    said = catalogue.why_not(RELEASES, host).get("10.0.0", [])
    assert [kernel in each and "taken only by name" in each for each in said] == (
        [] if chosen == "10.0.0" else [True]
    )
    # By name it is taken, and the kernel is said.
    assert catalogue.misfits("10.0.0", row, host) == []
    assert len(catalogue.warnings("10.0.0", row, host)) == len(said)


def test_pair_that_is_known_to_fail_is_not_installed() -> None:
    """The vendor's driver does not build for kernel 6.17 (legacy-rocm-build#5624)."""
    row = RELEASES["7.2.4"]
    assert {pair["verdict"] for pair in RELEASES["7.1.0"]["known_bad"]} == {"fail", "warn"}
    host = {
        "os": "ubuntu",
        "os_version": "24.04",
        "gfx": "gfx1100",
        "kernel": "7.0.0-5-generic",
        "dkms": True,
    }
    (reason,) = catalogue.misfits("7.2.4", row, host)
    assert "does not build" in reason
    assert "issues/6193" in reason
    assert "7.2.4" in catalogue.why_not(RELEASES, host)
    assert catalogue.misfits("7.2.4", row, host | {"dkms": False}) == []
    assert catalogue.misfits("7.2.4", row, host | {"kernel": "6.8.0-60-generic"}) == []


def test_pair_that_is_only_a_warning_is_said_and_refuses_nothing() -> None:
    row = RELEASES["6.4.2"]
    host = {"os": "ubuntu", "os_version": "24.04", "gfx": "gfx1151", "kernel": "6.8.0-60-generic"}
    assert any("CWSR" in each for each in catalogue.warnings("6.4.2", row, host))
    assert catalogue.warnings("6.4.2", row, host | {"gfx": "gfx1100"}) == []
    assert not any("CWSR" in each for each in catalogue.misfits("6.4.2", row, host))
