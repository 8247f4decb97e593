"""How long each thing may take."""

from __future__ import annotations

import pytest

from rockiln.domain.fault import Stage
from rockiln.settings import Settings
from rockiln.worker.clocks import Clocks, KeyTimes, Medians

CLOCKS = Clocks.of(Settings())
UNSEEN = KeyTimes()
GIB = 1 << 30


def test_the_defaults_are_those_of_the_table() -> None:
    assert Clocks(300, 120, 10, 600, 30, 60, 3600, 30, 1800, 7200) == CLOCKS


def test_a_model_of_two_gib_may_load_for_140_s_more() -> None:
    assert CLOCKS.starting(2 * GIB) == 300 + 120 + 20


@pytest.mark.parametrize(
    ("stage", "times", "clock", "seconds"),
    [
        ("encode_prompt", UNSEEN, "first_step", 600),
        ("denoise", UNSEEN, "first_step", 600),
        ("denoise", KeyTimes(step=1.0), "step", 30),
        ("denoise", KeyTimes(step=10.0), "step", 80),
        ("decode", UNSEEN, "first_decode", 600),
        ("decode", KeyTimes(decode=2.0), "decode", 60),
        ("decode", KeyTimes(decode=20.0), "decode", 160),
        ("encode", UNSEEN, "encode", 30),
    ],
)
def test_the_limit_of_a_stage(stage: Stage, times: KeyTimes, clock: str, seconds: float) -> None:
    limit = CLOCKS.stage(stage, times=times, first_step=True)
    assert (limit.clock, limit.seconds) == (clock, seconds)


def test_a_second_step_of_an_unseen_key_has_the_step_clock() -> None:
    assert CLOCKS.stage("denoise", times=UNSEEN).clock == "step"


def test_a_warm_up_may_search_for_an_hour() -> None:
    limit = CLOCKS.stage("decode", times=KeyTimes(decode=1.0), warm_up=True)
    assert (limit.clock, limit.seconds) == ("warm_up_decode", 3600)


def test_a_model_that_is_still_to_be_loaded_gives_the_first_step_more() -> None:
    limit = CLOCKS.stage("encode_prompt", times=KeyTimes(step=1.0), load_bytes=GIB)
    assert limit.seconds == 30 + 120 + 10


def test_medians_are_of_what_was_measured_else_of_what_is_remembered() -> None:
    medians = Medians()
    assert medians.times("key", KeyTimes(5.0, 6.0)) == KeyTimes(5.0, 6.0)
    for seconds in (1.0, 2.0, 30.0):
        medians.add_step("key", seconds)
    assert medians.times("key", KeyTimes(5.0, 6.0)) == KeyTimes(2.0, 6.0)
    assert medians.times("other", UNSEEN) == UNSEEN
