"""When submissions go out, and when tasks are looked at; the clock is an argument."""

from __future__ import annotations

import itertools
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedream_batch.pacing import PollSchedule, SubmissionPace


def slots(pace, times, now=0.0):
    """When each of so many submissions goes out, one waiting for the other."""
    found = []
    for _ in range(times):
        now += pace.next_slot(now)
        found.append(now)
    return found


def test_without_a_rate_nothing_waits():
    assert slots(SubmissionPace(None), 5, 7.0) == [7.0] * 5


def test_a_rate_spaces_submissions():
    assert slots(SubmissionPace(4), 5, 100.0) == [100.0, 100.25, 100.5, 100.75, 101.0]


def test_slots_that_are_taken_together_are_spaced_as_well():
    pace = SubmissionPace(2)
    assert [pace.next_slot(10.0) for _ in range(4)] == [0.0, 0.5, 1.0, 1.5]


def test_time_without_submissions_is_not_saved_up():
    pace = SubmissionPace(2)
    assert slots(pace, 2) == [0.0, 0.5]
    assert slots(pace, 3, 60.0) == [60.0, 60.5, 61.0]


@settings(max_examples=200, deadline=None)
@given(st.floats(0.01, 1000), st.lists(st.floats(0, 10), min_size=2, max_size=30))
def test_never_faster_than_the_rate(rate, pauses):
    pace, now, found = SubmissionPace(rate), 0.0, []
    for pause in pauses:
        now += pause
        wait = pace.next_slot(now)
        assert wait >= 0
        found.append(now + wait)
    assert all(later - earlier >= 1 / rate - 1e-6 for earlier, later in itertools.pairwise(found))


def test_everything_waits_for_the_pause_the_service_asked_for():
    pace = SubmissionPace(None)
    pace.refused(10.0, 30.0)
    assert pace.next_slot(11.0) == 29.0
    pace.refused(12.0, 5.0)  # a shorter pause does not end the longer one
    assert pace.next_slot(15.0) >= 25.0
    assert pace.next_slot(50.0) == 0.0
    for absurd in (-5.0, 0.0):
        pace.refused(60.0, absurd)
        assert pace.next_slot(61.0) >= 0.0


def spacing(pace, now):
    pace.next_slot(now)
    return pace.next_slot(now)


def test_refusals_of_what_was_under_way_slow_down_once():
    pace = SubmissionPace(None)
    for index in range(64):
        pace.refused(100.0 + index / 100, 2.0)
    assert spacing(pace, 200.0) == pytest.approx(0.02)


def test_each_further_refusal_slows_down_to_a_bound():
    pace, found = SubmissionPace(None), []
    for index in range(14):
        now = 100.0 * (index + 1)
        pace.refused(now, 1.0)
        found.append(spacing(pace, now + 50))
    assert found[:4] == pytest.approx([0.02, 0.04, 0.08, 0.16])
    assert found[-1] == 5.0
    assert found == sorted(found)


def test_refusals_that_never_end_slow_down_too():
    pace, now = SubmissionPace(None), 0.0
    for _ in range(200):
        now += 0.5
        pace.refused(now, 0.1)
    assert spacing(pace, now + 50) == 5.0


def test_the_slowdown_wears_off():
    pace = SubmissionPace(10)
    for index in range(9):
        pace.refused(100.0 * index, 1.0)
    before = spacing(pace, 1000.0)
    found = []
    for index in range(300):
        pace.accepted()
        found.append(spacing(pace, 2000.0 + 100 * index))
    assert before == 5.0
    assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx(0.1)  # the rate stays
    assert found[40] < before / 2


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["2K", "4K"]), st.floats(0, 1e6)), max_size=5),
    st.sampled_from(["2K", "4K", "8K"]),
    st.floats(-10, 1e7),
    st.integers(0, 1000),
    st.integers(),
)
def test_the_waits_between_looks_are_bounded(learnt, resolution, age, looks, seed):
    schedule = PollSchedule(Random(seed), shortest=0.2, longest=30.0)
    for known, seconds in learnt:
        schedule.learn(known, seconds)
    assert 0.9 * 0.2 <= schedule.wait(resolution, age, looks) <= 1.1 * 30.0


def test_tasks_submitted_together_are_not_looked_at_together():
    schedule = PollSchedule(Random(1))
    schedule.learn("2K", 20.0)
    waits = [schedule.wait("2K", 0.0, 0) for _ in range(1000)]
    assert len(set(waits)) == 1000
    assert max(waits) - min(waits) > 0.15 * 18
    assert sum(waits) / 1000 == pytest.approx(18.0, rel=0.02)


def noticed(schedule, resolution, ends):
    """When a task that ends so late is seen to have ended, and after how many looks."""
    age, looks = 0.0, 0
    while age < ends:
        age += schedule.wait(resolution, age, looks)
        looks += 1
    return age, looks


@pytest.mark.parametrize("ends", [0.1, 1.0, 15.0, 60.0, 180.0, 1000.0])
def test_an_end_is_noticed_soon_and_with_few_looks(ends):
    fresh = PollSchedule(Random(2))
    age, looks = noticed(fresh, "2K", ends)
    assert age - ends <= max(1.0, 0.45 * ends)
    assert looks <= 60
    learnt = PollSchedule(Random(2))
    for _ in range(5):
        learnt.learn("2K", ends)
    age, looks = noticed(learnt, "2K", ends)
    assert age - ends <= max(0.5, 0.3 * ends)
    assert looks <= 45


def test_what_is_usual_is_learnt_by_resolution_and_follows_slowly():
    schedule = PollSchedule(Random(3))
    schedule.learn("2K", 10.0)
    schedule.learn("4K", 30.0)
    assert schedule.wait("2K", 0.0, 0) == pytest.approx(9.0, rel=0.11)
    assert schedule.wait("4K", 0.0, 0) == pytest.approx(27.0, rel=0.11)
    schedule.learn("2K", 20.0)
    assert schedule.wait("2K", 0.0, 0) == pytest.approx(0.9 * 12, rel=0.11)
