"""When a dead engine may be followed by the next one."""

from __future__ import annotations

from rockiln.worker.budget import RestartBudget


def budget(**changes: float) -> RestartBudget:
    facts = {
        "deaths_allowed": 10,
        "window_seconds": 600.0,
        "first_seconds": 0.5,
        "max_seconds": 60.0,
        "probe_seconds": 300.0,
    }
    return RestartBudget(**(facts | changes), chance=lambda: 0.5)  # type: ignore[arg-type]


def die(held: RestartBudget, now: float, *, proven: bool = True, doubts: bool = False) -> float:
    return held.died(now, proven=proven, doubts_device=doubts)


def test_the_back_off_doubles_up_to_its_limit() -> None:
    held = budget(deaths_allowed=100)
    assert [die(held, 0.0) for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]


def test_the_back_off_has_jitter() -> None:
    low, high = (
        RestartBudget(
            deaths_allowed=10,
            window_seconds=600,
            first_seconds=0.5,
            max_seconds=60,
            probe_seconds=300,
            chance=chance,
        ).died(0.0, proven=True, doubts_device=False)
        for chance in (lambda: 0.0, lambda: 1.0)
    )
    assert 0 < low < 0.5 < high


def test_ten_minutes_of_health_start_the_back_off_anew() -> None:
    held = budget()
    die(held, 0.0)
    die(held, 1.0)
    held.proven(10.0)
    assert die(held, 609.0) == 2.0
    held.proven(610.0)
    assert die(held, 1210.0) == 0.5


def test_a_job_that_ends_well_starts_the_back_off_anew() -> None:
    held = budget()
    die(held, 0.0)
    die(held, 1.0)
    held.done()
    assert die(held, 2.0) == 0.5


def test_more_deaths_than_the_budget_are_a_wedge_until_a_proof() -> None:
    held = budget()
    for second in range(10):
        die(held, float(second))
    assert not held.wedged
    assert die(held, 11.0) == 300.0
    assert "11 engines died within 600 s" in held.wedged
    held.proven(311.0)
    assert not held.wedged
    assert held.deaths_in_window(311.0) == 0


def test_deaths_of_long_ago_do_not_count() -> None:
    held = budget()
    for minute in range(0, 100, 2):
        die(held, minute * 60.0)
    assert not held.wedged


def test_three_starts_that_fail_in_a_row_are_a_wedge() -> None:
    held = budget()
    assert [die(held, 0.0, proven=False) for _ in range(3)] == [0.5, 1.0, 300.0]
    assert "did not start" in held.wedged


def test_a_start_that_fails_on_a_doubted_device_is_a_wedge_at_once() -> None:
    held = budget()
    die(held, 0.0, doubts=True)
    assert not held.wedged
    assert die(held, 5.0, proven=False) == 300.0
    assert "proof" in held.wedged
