"""How long tasks take, as far as is known, and the ages at which looking at one tells the most."""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Iterable

LOOKS = 3.0
"""Looks that a task may need on average; with so many, the lag in noticing its end is made as small as can be."""

KEPT = 512
"""Task times that are kept; older ones are forgotten."""

POINTS = 48
"""Steps in which the known times are taken when the looks are laid out."""

BEHIND = 1.2
"""Beyond all that is known, the next look comes at so many times the age ..."""

PATIENCE = 60.0
"""... but at most so many seconds after the last one."""


class TaskTimes:
    """The times of tasks that have ended and the ages that others have reached, and the looks that follow from them.

    From both follows how probably a task of some age will end soon. The looks are laid out so that the mean lag between
    the end of a task and the look that notices it is least, for `LOOKS` looks a task. Times in seconds.
    """

    def __init__(self) -> None:
        self.count = 0
        """Tasks that have ended."""
        self._kept: deque[float] = deque(maxlen=KEPT)
        self._running: dict[object, float] = {}
        self._new = 0
        self._points: list[float] = []
        self._next: list[int] = []

    def learn(self, seconds: Iterable[float]) -> None:
        """So long did tasks take; the looks are laid out anew once a quarter of what is known is new."""
        for one in seconds:
            self._kept.append(max(one, 0.0))
            self.count += 1
            self._new += 1
        if 4 * self._new >= len(self._kept) > 0:
            self._new = 0
            self._points, self._next = _plan(sorted(self._kept), sorted(self._running.values()))

    @property
    def kept(self) -> list[float]:
        """What is known of tasks that have ended, oldest first."""
        return list(self._kept)

    def reached(self, task: object, age: float) -> None:
        """A task has this age and has not ended."""
        self._running[task] = age

    def left(self, task: object) -> None:
        """A task is not followed any more."""
        self._running.pop(task, None)

    def next_look(self, age: float) -> float:
        """The age at which to look next at a task that has not ended at this age; only once something is known."""
        # The last point lies behind all that is known, so there is no next one for it.
        at = bisect.bisect_right(self._points, age, hi=len(self._next))
        if at < len(self._next):
            return self._points[self._next[at]]
        return max(self._points[-1], min(BEHIND * age, age + PATIENCE))


def _plan(ended: list[float], reached: list[float]) -> tuple[list[float], list[int]]:
    """The points at which looks may lie, and for each but the last the number of the one to look at next."""
    points, shares = _quantiles(ended, reached)
    behind = [*points, 1.15 * points[-1]]
    # What a look may cost, in seconds of lag, so that there are as many of them as there may be.
    low, high = 0.0, max(points[-1], 1e-6)
    for _ in range(9):
        cost = (low + high) / 2
        low, high = (cost, high) if _laid_out(behind, shares, cost)[1] > LOOKS else (low, cost)
    return behind, _laid_out(behind, shares, high)[0]


def _quantiles(ended: list[float], reached: list[float]) -> tuple[list[float], list[float]]:
    """Times, at most about `POINTS`, and the share of the tasks that end at each; what is left ends later.

    By the estimator of Kaplan and Meier: a task that has not ended counts up to the age that it has reached. Those that
    end first are the quick ones, and without the others a run would take all tasks for quick.
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


def _laid_out(points: list[float], shares: list[float], cost: float) -> tuple[list[int], float]:
    """For each point, at which point to look next if the task had not ended before it; and the looks a task needs.

    At each point but the last its share of the tasks ends; the rest of them end behind the last one. What is least is
    the lag plus `cost` for each look, worked out from the last point backwards.
    """
    number = len(points) - 1
    left = [max(1.0 - sum(shares), 0.0)] * (number + 1)
    sums = [0.0] * (number + 1)
    for at in range(number - 1, -1, -1):
        left[at] = left[at + 1] + shares[at]
    for at in range(number):
        sums[at + 1] = sums[at] + shares[at] * points[at]
    following = [number] * number
    # Behind the last point two or three looks follow, each at a fifth of the age.
    least = [0.0] * number + [2 * cost + (BEHIND - 1) / 2 * points[-1]]
    looks = [0.0] * number + [2.0]
    for at in range(number - 1, -1, -1):
        best = math.inf
        # The later a task is looked at, the later is the look that follows best.
        for look in range(at, (following[at + 1] if at + 1 < number else number) + 1):
            seen = min(look + 1, number)
            lag = points[look] * (left[at] - left[seen]) - (sums[seen] - sums[at])
            total = cost + (lag + left[seen] * least[seen]) / left[at]
            if total < best:
                best, following[at], looks[at] = total, look, 1 + left[seen] * looks[seen] / left[at]
        least[at] = best
    return following, looks[0]
