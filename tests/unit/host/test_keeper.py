"""The keeper starts what was killed and leaves what was stopped."""

from __future__ import annotations

from pathlib import Path

from rockiln_keeper import BACKOFF_MAX_SECONDS, CALM_SECONDS, Keeper, read_state, write_state


def test_a_killed_container_is_due_after_the_time_of_grace() -> None:
    keeper = Keeper()
    keeper.note("worker", "die", now=100.0)
    assert keeper.due(101.0) == []
    assert keeper.due(102.0) == ["worker"]
    assert keeper.due(103.0) == []


def test_a_stopped_container_stays_stopped_whichever_event_comes_first() -> None:
    keeper = Keeper()
    keeper.note("worker", "die", now=100.0)
    keeper.note("worker", "stop", now=100.1)
    keeper.note("api", "stop", now=100.0)
    keeper.note("api", "die", now=100.1)
    assert keeper.due(1000.0) == []
    assert keeper.stopped_names() == ["api", "worker"]


def test_a_start_ends_a_stop() -> None:
    keeper = Keeper()
    keeper.note("worker", "stop", now=1.0)
    keeper.note("worker", "start", now=2.0)
    keeper.note("worker", "die", now=3.0)
    assert keeper.due(5.0) == ["worker"]


def test_what_the_engine_restarts_by_itself_is_left_to_it() -> None:
    keeper = Keeper()
    keeper.note("worker", "die", now=1.0)
    keeper.note("worker", "start", now=1.2)
    assert keeper.due(1000.0) == []


def test_a_replaced_container_is_not_started() -> None:
    keeper = Keeper()
    keeper.note("worker", "die", now=1.0)
    keeper.note("worker", "destroy", now=1.1)
    assert keeper.due(1000.0) == []


def test_repeated_deaths_are_answered_ever_more_slowly_until_it_is_calm() -> None:
    keeper, now, waits = Keeper(), 1000.0, []
    for _ in range(10):
        keeper.note("worker", "die", now=now)
        due = keeper.watch("worker").due_monotonic
        assert due is not None
        waits.append(due - now)
        now = due
        assert keeper.due(now) == ["worker"]
        keeper.revived("worker", now)
    assert waits == sorted(waits)
    assert waits[-1] == BACKOFF_MAX_SECONDS
    keeper.note("worker", "die", now=now + CALM_SECONDS + 1)
    assert keeper.due(now + CALM_SECONDS + 1 + 2.0) == ["worker"]


def test_deliberate_stops_outlive_the_keeper(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    write_state(state, 12.5, ["worker"])
    assert read_state(state) == (12.5, ["worker"])


def test_a_damaged_state_is_no_state(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    state.write_text("{", encoding="utf-8")
    assert read_state(state)[1] == []
