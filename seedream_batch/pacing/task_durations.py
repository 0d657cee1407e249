"""Known task durations, and the ages at which a poll is most useful."""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Iterable

LOOKS = 3.0
"""Average polls allowed per task; within that, the lag in noticing an end is minimised."""

KEPT = 512
"""Durations that are kept; older ones are dropped."""

POINTS = 48
"""Number of quantiles of the known durations at which polls may be placed."""

BEHIND = 1.2
"""Growth factor of the age between polls beyond all known durations ..."""

PATIENCE = 60.0
"""... and the most seconds between two of those polls."""


class TaskTimes:
    """Estimates when a task of some age will end, from durations of ended tasks and ages of running ones.

    Polls are placed to minimise the mean lag between the end of a task and the poll that notices it, at `LOOKS` polls
    per task. Times in seconds.
    """

    def __init__(self) -> None:
        self.count = 0
        """Number of ended tasks."""
        self._kept: deque[float] = deque(maxlen=KEPT)
        self._running: dict[object, float] = {}
        self._new = 0
        self._points: list[float] = []
        self._next: list[int] = []

    def learn(self, seconds: Iterable[float]) -> None:
        """Add durations; the polls are planned again once a quarter of the known durations are new."""
        for duration in seconds:
            self._kept.append(max(duration, 0.0))
            self.count += 1
            self._new += 1
        if 4 * self._new >= len(self._kept) > 0:
            self._new = 0
            self._points, self._next = _plan(sorted(self._kept), sorted(self._running.values()))

    @property
    def kept(self) -> list[float]:
        """Durations of ended tasks, oldest first."""
        return list(self._kept)

    def reached(self, task: object, age: float) -> None:
        """Record that a task has reached this age without ending."""
        self._running[task] = age

    def left(self, task: object) -> None:
        """Forget a task that is no longer followed."""
        self._running.pop(task, None)

    def next_look(self, age: float) -> float:
        """Return the age at which to poll a task of this age next; needs at least one known duration."""
        # The last point lies beyond all known durations, so no point follows it.
        at = bisect.bisect_right(self._points, age, hi=len(self._next))
        if at < len(self._next):
            return self._points[self._next[at]]
        return max(self._points[-1], min(BEHIND * age, age + PATIENCE))


def _plan(ended: list[float], reached: list[float]) -> tuple[list[float], list[int]]:
    """Return the ages at which to poll and, for each but the last, the index of the age to poll at next."""
    points, shares = _quantiles(ended, reached)
    behind = [*points, 1.15 * points[-1]]
    # Bisect for the cost of a poll, in seconds of lag, at which the plan uses the allowed number of polls.
    low, high = 0.0, max(points[-1], 1e-6)
    for _ in range(9):
        cost = (low + high) / 2
        low, high = (cost, high) if _place_polls(behind, shares, cost)[1] > LOOKS else (low, cost)
    return behind, _place_polls(behind, shares, high)[0]


def _quantiles(ended: list[float], reached: list[float]) -> tuple[list[float], list[float]]:
    """Return at most about `POINTS` durations, and the share of tasks that end at each; the rest end later.

    Uses the Kaplan-Meier estimator: a running task counts as alive up to the age that it has reached. Quick tasks end
    first, so without the running ones a run would take all tasks for quick.
    """
    at_risk = len(ended) + len(reached)
    left, passed, share = 1.0, 0, 0.0
    points: list[float] = []
    shares: list[float] = []
    for seconds in ended:
        while passed < len(reached) and reached[passed] < seconds:
            passed += 1
            at_risk -= 1
        here = left / at_risk
        at_risk -= 1
        left -= here
        share += here
        if share >= 1.0 / POINTS:
            points.append(seconds)
            shares.append(share)
            share = 0.0
    if share > 0 or not points:
        points.append(ended[-1])
        shares.append(share)
    return points, shares


def _place_polls(points: list[float], shares: list[float], cost: float) -> tuple[list[int], float]:
    """Return, for each point, the point to poll at next if the task is still running; and the polls per task.

    At each point but the last its share of the tasks ends; the rest end beyond the last one. Minimises the lag plus
    `cost` per poll by dynamic programming from the last point backwards.
    """
    number = len(points) - 1
    left = [max(1.0 - sum(shares), 0.0)] * (number + 1)
    sums = [0.0] * (number + 1)
    for at in range(number - 1, -1, -1):
        left[at] = left[at + 1] + shares[at]
    for at in range(number):
        sums[at + 1] = sums[at] + shares[at] * points[at]
    following = [number] * number
    # Beyond the last point two or three polls follow, each a fifth of the age after the one before.
    least = [0.0] * number + [2 * cost + (BEHIND - 1) / 2 * points[-1]]
    polls = [0.0] * number + [2.0]
    for at in range(number - 1, -1, -1):
        best = math.inf
        # The best next point never decreases with the age, which bounds the search.
        for poll in range(at, (following[at + 1] if at + 1 < number else number) + 1):
            passed = min(poll + 1, number)
            lag = points[poll] * (left[at] - left[passed]) - (sums[passed] - sums[at])
            total = cost + (lag + left[passed] * least[passed]) / left[at]
            if total < best:
                best, following[at], polls[at] = total, poll, 1 + left[passed] * polls[passed] / left[at]
        least[at] = best
    return following, polls[0]
