"""Kernel values on a tree of files: changed, not changed again, and put back."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.rockiln.host.plugins.module_utils import _live_values as live


@pytest.fixture
def count(tmp_path: Path) -> Path:
    path = tmp_path / "max_map_count"
    path.write_text("65530\n")
    return path


def run(values: dict[str, str], record: Path) -> live.Change:
    change = live.plan_change(values, live.read_record(record))
    live.apply_change(change, record)
    return change


def test_value_is_changed_once_and_put_back(count: Path, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    assert run({str(count): "1048576"}, record).changed
    assert count.read_text() == "1048576\n"
    assert not run({str(count): "1048576"}, record).changed
    assert run({}, record).changed
    assert count.read_text() == "65530\n"
    assert not record.exists()
    assert not run({}, record).changed


def test_first_value_is_put_back_after_two_wishes(count: Path, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    run({str(count): "100000"}, record)
    run({str(count): "200000"}, record)
    run({}, record)
    assert count.read_text() == "65530\n"


def test_value_that_was_there_before_is_left_there(count: Path, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    assert not run({str(count): "65530"}, record).changed
    run({}, record)
    assert count.read_text() == "65530\n"


def test_kill_between_record_and_value_still_puts_back(count: Path, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    live.write_record(record, {str(count): "65530"})
    count.write_text("1048576\n")
    run({}, record)
    assert count.read_text() == "65530\n"


def test_chosen_word_of_a_choice_is_the_value(tmp_path: Path) -> None:
    path = tmp_path / "enabled"
    path.write_text("always [madvise] never\n")
    assert live.read_value(path) == "madvise"


def test_read_only_and_missing_values_are_named_and_change_nothing(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    read_only = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    missing = tmp_path / "nothing"
    change = run({str(missing): "1"}, record)
    assert change.not_applied == (f"{missing}, this kernel has no such value",)
    assert not change.changed
    if read_only.exists() and live.obstacle(read_only):
        assert not run({str(read_only): "never"}, record).changed
