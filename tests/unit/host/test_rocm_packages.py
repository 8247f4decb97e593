"""From an index and a host to one transaction; apt's words to causes."""

from __future__ import annotations

import pytest
from ansible_collections.rockiln.host.plugins.module_utils import _apt as apt
from ansible_collections.rockiln.host.plugins.module_utils import _dpkg as dpkg
from ansible_collections.rockiln.host.plugins.module_utils import _rocm_packages as packages
from ansible_collections.rockiln.host.plugins.module_utils._rocm_refusals import explain

INDEX = """\
Package: rocm-core
Version: 7.2.4.70204-93~22.04
Size: 10
Installed-Size: 4

Package: rocminfo
Version: 1.0.0.70204-93~22.04
Depends: hsa-rocr, pciutils, python3, libgcc-s1 | libgcc1, rocm-core
Size: 20
Installed-Size: 8

Package: hsa-rocr
Version: 1.15.0.70204-93~22.04
Depends: libc6, rocm-core (= 7.2.4.70204-93~22.04)

Package: rocm-device-libs
Version: 1.0.0.70204-93~22.04
"""
STATUS = """\
Package: rocminfo
Status: hold ok installed
Version: 5.2.3-2

Package: rocm-device-libs
Status: install ok installed
Version: 5.2.3-2

Package: half
Status: install ok half-configured
Version: 1

Package: gone
Status: deinstall ok config-files
Version: 1
"""


def index() -> packages.Index:
    return packages.Index(apt.parse_index(INDEX), dpkg.compare_versions)


def test_status_says_what_is_installed_held_and_half_done() -> None:
    installed, half_done = dpkg.parse_status(STATUS)
    assert installed == {
        "rocminfo": dpkg.Installed("5.2.3-2", held=True),
        "rocm-device-libs": dpkg.Installed("5.2.3-2", held=False),
    }
    assert half_done == ["half (half-configured)"]


def test_shadows_are_replaced_where_wanted_and_removed_else() -> None:
    installed, _ = dpkg.parse_status(STATUS)
    plan = packages.make_plan(
        {"rocminfo": "1.0.0.70204-93~22.04"}, index(), installed, packages.Record()
    )
    assert plan.shadows == {"rocminfo": "5.2.3-2", "rocm-device-libs": "5.2.3-2"}
    assert plan.removals == ("rocm-device-libs",)
    assert plan.words == [
        "hsa-rocr=1.15.0.70204-93~22.04",
        "rocm-core=7.2.4.70204-93~22.04",
        "rocminfo=1.0.0.70204-93~22.04",
        "rocm-device-libs-",
    ]


def test_persons_hold_is_in_the_way_and_ours_is_not() -> None:
    installed, _ = dpkg.parse_status(STATUS)
    wanted = {"rocminfo": "1.0.0.70204-93~22.04"}
    plan = packages.make_plan(wanted, index(), installed, packages.Record())
    assert packages.holds_in_the_way(plan, installed, packages.Record()) == ["rocminfo"]
    ours = packages.Record(holds=("rocminfo",))
    assert packages.holds_in_the_way(plan, installed, ours) == []


def test_packages_of_the_earlier_row_go() -> None:
    record = packages.Record(
        packages={"amdrocm-amdsmi10.0": "10.0.0-4", "kept": "1"}, found_before=("kept",)
    )
    installed = {
        "amdrocm-amdsmi10.0": dpkg.Installed("10.0.0-4", held=True),
        "kept": dpkg.Installed("1", held=True),
    }
    plan = packages.make_plan({"rocm-core": "7.2.4.70204-93~22.04"}, index(), installed, record)
    assert plan.removals == ("amdrocm-amdsmi10.0",)


def test_version_left_open_is_the_newest_of_the_index() -> None:
    found = packages.resolve_versions({"rocminfo": None}, index(), "the repository")
    assert found == {"rocminfo": "1.0.0.70204-93~22.04"}


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"rocminfo": "9"}, "has no rocminfo 9; it has 1.0.0"),
        ({"nobody": None}, "no package nobody"),
    ],
)
def test_what_the_index_lacks_is_refused(wanted: dict[str, str | None], words: str) -> None:
    with pytest.raises(packages.RefusedError, match=words):
        packages.resolve_versions(wanted, index(), "the repository")


def test_apt_may_take_nothing_away_that_the_plan_does_not_name() -> None:
    simulation = apt.parse_simulation(
        "Remv rocm-device-libs [5.2.3-2]\nRemv hipcc [5.2.3-2]\n"
        "Inst rocminfo [5.2.3-2] (1.0.0.70204-93~22.04 repo.radeon.com:jammy [amd64])\n"
    )
    assert simulation.installs == {"rocminfo": "1.0.0.70204-93~22.04"}
    plan = packages.Plan({}, {}, {}, ("rocm-device-libs",), {})
    with pytest.raises(packages.RefusedError, match="take away hipcc too"):
        packages.check_simulation(plan, simulation)


def test_priority_is_read_from_the_versions_own_line() -> None:
    policy = (
        "rocminfo:\n  Installed: 5.2.3-2\n  Version table:\n *** 5.2.3-2 500\n        500 x\n"
        "     1.0.0.70204-93~22.04 600\n        600 y\n"
    )
    assert apt.priority_of(policy, "1.0.0.70204-93~22.04") == 600
    assert apt.priority_of(policy, "5.2.3-2") == 500
    assert apt.priority_of(policy, "1.0") is None


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ("E: The repository 'x jammy InRelease' is not signed.", "not signed by the catalogue's"),
        ("E: Failed to fetch x  404  Not Found", "cannot be reached"),
        ("E: You don't have enough free space in /var/cache/apt/archives/.", "no space"),
        ("rccl : Depends: libdrm-amdgpu-amdgpu1 but unmet dependencies", "cannot install"),
        ("E: Could not get lock /var/lib/dpkg/lock-frontend", "another apt"),
        ("something new", "apt failed: something new"),
    ],
)
def test_words_of_apt_get_a_cause_and_a_next_step(words: str, cause: str) -> None:
    told = explain(words, "https://repo.example/rocm")
    assert cause in told
    assert "Next: " in told
