"""Hosts of every kind are classified right, without ROCm."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.rockiln.host.plugins.module_utils._gpu_facts import (
    Roots,
    choose,
    gfx_of,
    gpu_facts,
    override_for,
)

from support.host_tree import host_names, load_host, plant

ROW = {"gfx": ["gfx1030", "gfx1100"], "hsa_override": {"gfx1031": "10.3.0"}}


def facts_of(name: str, tmp_path: Path, wanted: str = "") -> dict[str, Any]:
    return gpu_facts(Roots.below(plant(tmp_path, load_host(name))), wanted)


def seen_and_expected(name: str, tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What decides a host's class, as it is read and as it should be."""
    facts, expected = facts_of(name, tmp_path), load_host(name)["expect"]
    wanted: list[dict[str, Any]] = expected["gpus"]
    found: list[dict[str, Any]] = facts["gpus"]
    paired = zip_longest(found, wanted, fillvalue=dict[str, Any]())
    seen = {
        "gpus": [{key: gpu.get(key) for key in (want or gpu)} for gpu, want in paired],
        "chosen": facts["chosen"],
        "origin": facts["driver"]["origin"],
        "problems": sorted(each["id"] for each in facts["problems"]),
        "wsl": facts["wsl"],
        "other_vendors": facts["other_vendors"],
        "groups": facts["groups"],
    }
    return seen, {
        "gpus": wanted,
        "chosen": expected["chosen"],
        "origin": expected["origin"],
        "problems": sorted(expected["problems"]),
        "wsl": expected.get("wsl", False),
        "other_vendors": expected.get("other_vendors", []),
        "groups": {"render_gid": 993, "video_gid": 44},
    }


@pytest.mark.parametrize("name", host_names())
def test_every_host_is_classified_right(name: str, tmp_path: Path) -> None:
    seen, expected = seen_and_expected(name, tmp_path)
    assert seen == expected


def test_figure_of_hosts_counts_recorded_and_synthetic_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A host says in which of the two it is, and field by field where it is from."""
    counts = {"recorded": [0, 0], "synthetic": [0, 0]}
    for name in host_names():
        provenance = load_host(name)["provenance"]
        assert provenance["fields"], name
        seen, expected = seen_and_expected(name, tmp_path / name)
        counts[provenance["kind"]][0] += seen == expected
        counts[provenance["kind"]][1] += 1
    with capsys.disabled():
        told = ", ".join(f"{kind} {right}/{of}" for kind, (right, of) in counts.items())
        print(f"\nhosts classified right: {told}")  # noqa: T201 (the figure)
    assert sum(of for _, of in counts.values()) >= 15
    assert all(right == of > 0 for right, of in counts.values())


@pytest.mark.parametrize(
    ("version", "gfx"),
    [(90010, "gfx90a"), (90402, "gfx942"), (100306, "gfx1036"), (110501, "gfx1151")],
)
def test_targets_are_hexadecimal_in_their_last_two_digits(version: int, gfx: str) -> None:
    assert gfx_of(version) == gfx


def test_a_processors_graphics_are_chosen_when_asked_for(tmp_path: Path) -> None:
    assert facts_of("ryzen_igpu_first", tmp_path, "PCI-0000:0f:00.0")["chosen"] == (
        "PCI-0000:0f:00.0"
    )


def test_a_card_that_is_not_here_is_told_with_those_that_are(tmp_path: Path) -> None:
    facts = facts_of("two_rx7900xtx", tmp_path, "GPU-00000000000000ff")
    assert facts["chosen"] is None
    (problem,) = facts["problems"]
    assert problem["id"] == "wanted_gpu_missing"
    assert "GPU-0000000000000001" in problem["detail"]


def test_the_choice_does_not_depend_on_the_order_of_nodes(tmp_path: Path) -> None:
    gpus = facts_of("two_rx7900xtx", tmp_path)["gpus"]
    assert choose(gpus) == choose(gpus[::-1]) == "GPU-0000000000000001"


@pytest.mark.parametrize(
    ("gfx", "value"), [("gfx1030", None), ("gfx1031", "10.3.0"), ("gfx1151", None), ("", None)]
)
def test_an_override_only_for_a_target_that_the_image_lacks(gfx: str, value: str | None) -> None:
    assert override_for(ROW, gfx) == value


def test_the_command_line_is_a_fact(tmp_path: Path) -> None:
    assert "amd_iommu=off" in facts_of("strix_halo", tmp_path)["kernel_command_line"]
