"""Turns that several runs take from one pace: together no more than one run alone would take."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedream_batch.pacing import RateFeedback, reserve_slots
from seedream_batch.pacing.rate_limiter import RESERVED, START

LEAD = 0.02


def took(state, rate, now, most, **news):
    return reserve_slots(state, rate, now, most, lead=LEAD, news=RateFeedback(**news))


def test_the_first_to_come_gets_the_first_turns():
    state, turns, _ = took("", 10.0, 1000.0, 3)
    assert turns == pytest.approx((1000.0, 1000.1, 1000.2), abs=0.03)
    _, more, _ = took(state, 10.0, 1000.15, 2)
    assert more == pytest.approx((1000.3, 1000.4), abs=0.04)


def test_no_turn_is_so_late_that_an_intent_waits_for_long():
    state, turns, free_in = took("", 20.0, 1000.0, 100)
    assert 5 <= len(turns) <= 7
    assert turns[-1] <= 1000.0 + LEAD + RESERVED
    assert 0.0 < free_in < RESERVED
    assert took(state, 20.0, 1000.0, 100)[1] == ()


def test_turns_come_no_sooner_than_an_intent_is_written():
    _, turns, _ = reserve_slots("", 100.0, 1000.0, 5, lead=0.5, news=RateFeedback())
    assert turns[0] >= 1000.4


def test_a_pause_holds_for_whoever_comes_next():
    state, _, _ = took("", 100.0, 1000.0, 1)
    state, turns, free_in = took(state, 100.0, 1001.0, 0, refused=[(1001.0, 30.0)])
    assert turns == ()
    state, turns, free_in = took(state, 100.0, 1002.0, 5)
    assert turns == ()
    assert 27.0 < free_in < 29.0
    assert len(took(state, 100.0, 1031.0, 5)[1]) == 5


def test_without_a_rate_it_starts_gently_and_grows_with_what_is_accepted():
    state, turns, _ = took("", None, 1000.0, 100)
    assert len(turns) <= START + 2
    for second in range(1, 6):
        now = 1000.0 + second
        state, turns, _ = took(state, None, now, 200, accepted=[now - 0.5 + number / 100 for number in range(40)])
    assert len(turns) > 2 * START


def test_a_rate_that_was_lowered_since_holds_at_once():
    state, _, _ = took("", 100.0, 1000.0, 10)
    state, turns, _ = took(state, 5.0, 1010.0, 100)
    assert len(turns) <= 7


def test_a_clock_that_was_set_back_does_not_hold_everything_up():
    state, _, _ = took("", 10.0, 9_000_000.0, 5)
    _, turns, free_in = took(state, 10.0, 1000.0, 5)
    assert turns or free_in < 5.0


def test_what_is_kept_stays_small():
    state = ""
    for second in range(50):
        now = 1000.0 + second
        state, _, _ = took(state, 100.0, now, 50, accepted=[now] * 50)
    assert len(state) < 6000
    assert json.loads(state)["rate"] == 100.0


@given(
    rate=st.sampled_from([1.0, 7.0, 50.0]),
    calls=st.lists(st.tuples(st.floats(0.0, 0.4), st.integers(0, 40)), min_size=1, max_size=60),
)
def test_together_they_keep_to_the_rate(rate, calls):
    state, now, given_out = "", 1000.0, []
    for pause, most in calls:
        now += pause
        state, turns, _ = took(state, rate, now, most)
        given_out += turns
    assert given_out == sorted(given_out)
    for begin, at in enumerate(given_out):
        within = sum(1 for one in given_out[begin:] if one <= at + 2.0)
        assert within <= 2.0 * rate * 1.05 + 2
