"""Records of a host's states: what a killed run left is read by the next one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.rockiln.host.plugins.module_utils._state import StateDir, StateError


def present(release: str) -> dict[str, Any]:
    return {
        "release": release,
        "row": {"backend": "rocm"},
        "images": {"worker": {"tag": f"worker:{release}", "digest": f"sha256:{release}"}},
        "packages": {"rocm-core": release},
        "files": {"/etc/rockiln/public/settings.toml": f"release = {release}\n"},
    }


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path / "state", now=lambda: "now")


def upgraded(state: StateDir, before: str, after: str) -> None:
    assert state.begin(present(before), release=after)
    assert state.finish(present(after))


def test_an_upgrade_that_ended_leaves_both_states(state: StateDir) -> None:
    upgraded(state, "6.4.2", "7.2.4")
    pointer = state.pointer()
    assert (pointer["current"], pointer["previous"], pointer["upgrade"]) == (2, 1, None)
    target = state.target(None)
    assert target is not None
    assert (target["release"], target["images"]["worker"]["tag"]) == ("6.4.2", "worker:6.4.2")


def test_a_killed_upgrade_keeps_the_record_of_before(state: StateDir) -> None:
    state.begin(present("6.4.2"), release="7.2.4")
    half = {**present("7.2.4"), "packages": {"rocm-core": "6.4.2"}}
    assert not state.begin(half, release="7.2.4")
    assert state.begin(half, release="10.0.0")
    assert state.numbers() == [1]
    target = state.target(None)
    assert target is not None
    assert target["release"] == "6.4.2"
    assert state.finish(present("10.0.0"))
    assert state.pointer()["previous"] == 1


def test_an_equal_state_is_not_recorded_twice(state: StateDir) -> None:
    upgraded(state, "6.4.2", "7.2.4")
    upgraded(state, "7.2.4", "10.0.0")
    assert state.numbers() == [1, 2, 3]
    assert not state.finish(present("10.0.0"))


def test_a_second_rollback_by_hand_stays(state: StateDir) -> None:
    upgraded(state, "6.4.2", "7.2.4")
    upgraded(state, "7.2.4", "10.0.0")
    assert state.went_back(2, reason="by hand", by_hand=True)
    assert state.target(None) is None
    assert not state.went_back(2, reason="by hand", by_hand=True)
    older = state.target(1)
    assert older is not None
    assert older["release"] == "6.4.2"


def test_after_an_upgrade_took_itself_back_one_can_go_further_back(state: StateDir) -> None:
    upgraded(state, "6.4.2", "7.2.4")
    state.begin(present("7.2.4"), release="10.0.0")
    assert state.went_back(2, reason="the picture is flat", by_hand=False)
    pointer = state.pointer()
    assert pointer["failure"] == {"left": "10.0.0", "at": "now", "reason": "the picture is flat"}
    target = state.target(None)
    assert target is not None
    assert target["number"] == 1


def test_a_host_without_records_says_how_to_get_one(state: StateDir) -> None:
    with pytest.raises(StateError, match=r"upgrade\.yml records one"):
        state.target(None)


def test_a_record_that_is_damaged_or_missing_is_named(state: StateDir) -> None:
    upgraded(state, "6.4.2", "7.2.4")
    (state.folder / "0001.json").write_text("{", encoding="utf-8")
    with pytest.raises(StateError, match=r"0001\.json is damaged"):
        state.target(None)
    with pytest.raises(StateError, match=r"there is no record .*0007\.json; there are: 1, 2"):
        state.target(7)
