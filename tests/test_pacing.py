"""When submissions go out, and when tasks are looked at; the clock is an argument."""

from __future__ import annotations

import heapq
import itertools
from random import Random

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from seedream_batch.pacing import AdaptiveRateLimiter, PollSchedule
from seedream_batch.pacing.poll_schedule import ENOUGH, PROBES
from seedream_batch.pacing.rate_limiter import LATE, MOST_HELD, SLOWEST, START

# TaskStore


def slots(pace, times, now=0.0):
    """When each of so many submissions goes out, one waiting for the other."""
    found = []
    for _ in range(times):
        now += pace.next_slot(now)
        found.append(now)
    return found


def test_a_rate_spaces_submissions():
    assert slots(AdaptiveRateLimiter(4), 5, 100.0) == pytest.approx(
        [100 - 0, 100.25 - LATE, 100.5 - LATE, 100.75 - LATE, 101 - LATE]
    )


def test_slots_that_are_taken_together_are_spaced_as_well():
    pace = AdaptiveRateLimiter(2)
    waits = [pace.next_slot(10.0) for _ in range(4)]
    assert [later - earlier for earlier, later in itertools.pairwise(waits[1:])] == pytest.approx([0.5, 0.5])


@settings(max_examples=examples(200))
@given(st.floats(0.01, 1000), st.lists(st.floats(0, 10), min_size=2, max_size=30))
def test_on_average_never_faster_than_the_rate(rate, pauses):
    pace, now, found = AdaptiveRateLimiter(rate), 0.0, []
    for pause in pauses:
        now += pause
        wait = pace.next_slot(now)
        assert wait >= 0
        found.append(now + wait)
    for first, last in itertools.combinations(range(len(found)), 2):
        assert found[last] - found[first] >= (last - first) / rate - LATE - 1e-6


@settings(max_examples=examples(200))
@given(st.floats(2, 1000), st.lists(st.floats(0, 0.5), min_size=2, max_size=60))
def test_what_the_disk_held_up_together_leaves_at_the_rate(rate, delays):
    """Each delay is what passes from a slot until the intent is on the disk; a slow one holds up the next."""
    pace, left, held, written = AdaptiveRateLimiter(rate), [], [], 0.0
    due = [(pace.next_slot(0.0), -1, "slot")]
    numbers = iter(enumerate(delays))
    while due:
        now, _, what = heapq.heappop(due)
        if what == "written":
            held.append(pace.leaving(now))
            left.append(now + held[-1])
            continue
        number, delay = next(numbers, (None, None))
        if number is None:
            continue
        written = max(written, now + delay)
        heapq.heappush(due, (written, number, "written"))
        heapq.heappush(due, (now + pace.next_slot(now), -1, "slot"))
    assert len(left) == len(delays)
    assert max(held) < MOST_HELD, "so none was let go early"
    for first, last in itertools.combinations(range(len(left)), 2):
        assert left[last] - left[first] >= (last - first) / rate - LATE - 1e-6


def test_nothing_waits_for_long_once_its_intent_is_written():
    pace = AdaptiveRateLimiter(0.001)
    assert pace.leaving(0.0) == 0.0
    assert pace.leaving(0.0) == MOST_HELD


def test_everything_waits_for_the_pause_the_service_asked_for():
    pace = AdaptiveRateLimiter(None)
    pace.refused(10.0, 30.0)
    assert pace.next_slot(11.0) == 29.0
    pace.refused(12.0, 5.0)  # a shorter pause does not end the longer one
    assert pace.next_slot(15.0) >= 25.0
    assert pace.next_slot(50.0) == 0.0
    for absurd in (-5.0, 0.0):
        pace.refused(60.0, absurd)
        assert pace.next_slot(61.0) >= 0.0


def test_refusals_of_what_was_under_way_slow_down_once():
    pace = AdaptiveRateLimiter(None)
    for index in range(64):
        pace.refused(100.0 + index / 100, 2.0)
    assert pace.rate == START / 2


def test_refusals_that_never_end_slow_down_to_a_bound():
    pace, now = AdaptiveRateLimiter(None), 0.0
    for _ in range(200):
        now += 2.0
        pace.refused(now, 0.1)
    assert pace.rate == SLOWEST


class Limited:
    """A service with a limit, asked as a run asks it; all in simulated time."""

    def __init__(self, limit, rate=None, answer=0.05, retry_after=1.0):
        self.limit, self.answer, self.retry_after = limit, answer, retry_after
        self.pace = AdaptiveRateLimiter(rate)
        self.size = self.tokens = max(1.0, limit / 10)
        self.filled = self.now = 0.0
        self.sent = self.accepted = self.refused = 0

    def run(self, tasks, *, seconds=1e6):
        """Until so many are accepted, or so long; how many a second were accepted."""
        began, had, until = self.now, self.accepted, self.now + seconds
        due = [(self.now + self.pace.next_slot(self.now), 0, "send")]
        numbers = itertools.count(1)
        while self.accepted - had < tasks and due[0][0] < until:
            self.now, _, what = heapq.heappop(due)
            match what:
                case "send":
                    self.sent += 1
                    heapq.heappush(due, (self.now + self.answer, next(numbers), self._take()))
                    heapq.heappush(due, (self.now + self.pace.next_slot(self.now), next(numbers), "send"))
                case "accepted":
                    self.accepted += 1
                    self.pace.accepted(self.now)
                case "refused":
                    self.refused += 1
                    self.pace.refused(self.now, self.retry_after)
        return (self.accepted - had) / (self.now - began)

    def _take(self):
        self.tokens = min(self.size, self.tokens + (self.now - self.filled) * self.limit)
        self.filled = self.now
        if self.tokens < 1:
            return "refused"
        self.tokens -= 1
        return "accepted"


@pytest.mark.parametrize("limit", [1, 2, 5, 8, 10, 20, 50])
@pytest.mark.parametrize("answer", [0.005, 0.1])
def test_a_limit_is_found_and_kept(limit, answer):
    service = Limited(limit, answer=answer)
    assert service.run(2000) >= 0.9 * limit
    assert service.refused <= 0.02 * service.sent


class HeldUp(Limited):
    """Every few seconds it does nothing for a moment, and meets all that has come meanwhile at once."""

    def __init__(self, limit, every, moment, **settings):
        super().__init__(limit, **settings)
        self.every, self.moment = every, moment

    def _take(self):
        since = self.now % self.every
        now = self.now
        if since < self.moment:
            # Met when the moment is over.
            self.now += self.moment - since
        try:
            return super()._take()
        finally:
            self.now = now


@pytest.mark.parametrize("rate", [None, 50])
@pytest.mark.parametrize("moment", [0.15, 0.4])
def test_a_service_that_is_held_up_now_and_then_is_not_taken_for_slow(rate, moment):
    service = HeldUp(50, 20.0, moment, rate=rate)
    # It refuses what comes together, and then wants a pause.
    best = 50 * (1 - (moment + service.retry_after) / 20.0)
    assert service.run(4000) >= 0.9 * best
    assert service.refused <= 0.02 * service.sent


def test_a_high_limit_is_reached_in_the_end():
    service = Limited(1000)
    service.run(20_000)
    assert service.run(20_000) >= 0.9 * 1000


def test_a_limit_that_is_raised_is_found_again_and_one_that_is_lowered_costs_little():
    service = Limited(20)
    service.run(2000)
    service.limit, refused = 10, service.refused
    assert service.run(1000) >= 0.85 * 10
    assert service.refused - refused <= 20
    service.limit = 20
    rate = service.pace.rate
    service.run(1e9, seconds=600)
    assert service.pace.rate > 1.2 * rate


@pytest.mark.thorough
def test_a_configured_rate_is_a_bound():
    service = Limited(50, rate=10)
    assert service.run(500) == pytest.approx(10, rel=0.02)
    assert service.refused == 0
    slow = Limited(5, rate=10)
    assert slow.run(500) >= 0.9 * 5
    slow.limit = 50
    slow.run(1e9, seconds=36_000)
    assert slow.pace.rate == 10


@pytest.mark.parametrize("per_hour", [1, 60, 700])
def test_refusals_never_raise_a_rate_that_is_slow_already(per_hour):
    pace, now = AdaptiveRateLimiter(per_hour / 3600), 0.0
    for _ in range(5):
        now += 3600.0
        pace.refused(now, 1.0)
        assert pace.rate <= per_hour / 3600


def test_growth_keeps_to_what_is_really_sent():
    """A run that has nothing to send for a while does not come back with a rate that nobody ever tried."""
    pace, now = AdaptiveRateLimiter(None), 0.0
    for _ in range(500):
        now += 1.0
        pace.accepted(now)
    assert pace.rate <= 2 * START


# Looks


class Clock:
    """A clock that is set."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@settings(max_examples=examples(300))
@given(
    st.lists(st.tuples(st.sampled_from(["2K", "4K"]), st.floats(0, 1e6)), max_size=12),
    st.sampled_from(["2K", "4K", "8K"]),
    st.lists(st.floats(0, 1e7), min_size=1, max_size=5),
    st.integers(),
)
def test_the_waits_between_looks_are_bounded(learnt, resolution, ages, seed):
    schedule = PollSchedule(Random(seed), monotonic=Clock(), shortest=0.2, longest=30.0)
    for known, seconds in learnt:
        schedule.learn(known, [seconds])
    watch = schedule.watch(resolution)
    for age in sorted(ages):
        assert 0.9 * 0.2 <= watch.wait(age) <= 1.1 * 30.0
        watch.looked(age)


def test_tasks_submitted_together_are_not_looked_at_together():
    schedule = PollSchedule(Random(1), monotonic=Clock())
    schedule.learn("2K", [20.0] * 100)
    waits = sorted(schedule.watch("2K").wait(0.0) for _ in range(1000))
    assert len(set(waits)) == 1000
    assert waits[0] >= 20.0
    assert all(later - sooner > 0.8 for sooner, later in zip(waits, waits[800:], strict=False))
    assert waits[-1] < 22.0


@pytest.mark.parametrize("fails", [True, False])
def test_few_scouts_are_out_and_the_others_wait_for_what_they_tell(fails):
    schedule = PollSchedule(Random(1), monotonic=Clock())
    watches = [schedule.watch("2K") for _ in range(20)]
    waits = [watch.wait(0.0) for watch in watches]
    assert sum(wait < 2 for wait in waits) == PROBES
    assert len({round(wait, 2) for wait in waits}) >= PROBES
    assert [watch.depends_on_others for watch in watches] == [False] * PROBES + [True] * (20 - PROBES)
    watches[0].close()
    watches[0].close()
    assert watches[-1].wait(0.0) < 2  # a place among the scouts was free
    for watch in watches[1:ENOUGH]:
        watch.looked(9.0)
        watch.ended(10.0, failed=True)
    assert not schedule.knows("2K")
    watches[ENOUGH].looked(9.0)
    watches[ENOUGH].ended(10.0, failed=fails)
    assert schedule.knows("2K")
    assert not schedule.knows("4K")
    assert not any(watch.depends_on_others for watch in watches)
    assert watches[-2].wait(0.0) == pytest.approx(10.0, rel=0.2)


def test_one_that_was_completed_is_enough():
    schedule = PollSchedule(Random(1), monotonic=Clock())
    first, other = schedule.watch("2K"), schedule.watch("2K")
    first.wait(0.0)
    other.wait(0.0)
    first.ended(12.0, 12.0)
    assert schedule.knows("2K")
    assert other.wait(3.0) == pytest.approx(9.0, rel=0.03)


def test_what_the_service_tells_of_the_time_counts_within_what_was_seen():
    for told, known in ((9.3, 9.3), (2.0, 8.0), (30.0, 10.0), (None, 9.0)):
        schedule = PollSchedule(Random(1), monotonic=Clock())
        for _ in range(ENOUGH):
            watch = schedule.watch("2K")
            watch.wait(0.0)
            watch.looked(8.0)
            watch.ended(10.0, told)
        assert schedule.watch("2K").wait(0.0) == pytest.approx(known, rel=0.04)


def followed(times, rate, schedule, clock):
    """Tasks of such times, submitted so many a second, and followed as a run does: looks a task, lag by the time."""
    due, waiting, number = [], {}, itertools.count()
    for index, seconds in enumerate(times):
        heapq.heappush(due, (index / rate, next(number), None, index / rate, seconds))
    looks = lag = 0
    turns = {}
    while due:
        now, turn, watch, start, seconds = heapq.heappop(due)
        clock.now = now
        if watch is None:
            watch = schedule.watch("2K")
        elif turns[watch] != turn:
            continue
        else:
            looks += 1
            if now - start >= seconds:
                lag += now - start - seconds
                watch.ended(now - start, seconds)
                waiting.pop(watch, None)
                if schedule.knows("2K"):
                    for other, (began, length) in waiting.items():
                        turns[other] = next(number)
                        heapq.heappush(due, (now + other.wait(now - began), turns[other], other, began, length))
                    waiting.clear()
                continue
            watch.looked(now - start)
        turns[watch] = next(number)
        heapq.heappush(due, (now + watch.wait(now - start), turns[watch], watch, start, seconds))
        if watch.depends_on_others:
            waiting[watch] = (start, seconds)
    return looks / len(times), lag / sum(times)


@pytest.mark.parametrize("typical", [0.5, 5.0, 20.0, 90.0])
@pytest.mark.parametrize("spread", [0.0, 0.2, 0.4])
def test_ends_are_noticed_soon_and_with_few_looks(typical, spread):
    random = Random(3)
    times = [typical * random.lognormvariate(0.0, spread) for _ in range(1000)]
    clock = Clock()
    looks, lag = followed(times, 40 / typical, PollSchedule(Random(4), monotonic=clock), clock)
    assert looks <= (3.0 if spread else 1.2)
    assert lag <= 0.02 + 0.35 * spread


def test_earlier_runs_help_and_a_change_is_followed():
    random = Random(5)
    clock = Clock()
    schedule = PollSchedule(Random(6), monotonic=clock)
    schedule.learn("2K", [20.0 * random.lognormvariate(0.0, 0.2) for _ in range(300)])
    times = [20.0 * random.lognormvariate(0.0, 0.2) for _ in range(50)]
    looks, lag = followed(times, 1000.0, schedule, clock)
    assert looks <= 3.2
    assert lag <= 0.12
    slower = [60.0 * random.lognormvariate(0.0, 0.2) for _ in range(2000)]
    followed(slower[:1000], 2.0, schedule, clock)
    looks, lag = followed(slower[1000:], 2.0, schedule, clock)
    assert looks <= 3.5
    assert lag <= 0.12
