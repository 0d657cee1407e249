"""When to look at a task that is at work, learnt from how long others took."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from seedream_batch.pacing.times import TaskTimes

SCOUTS = 6
"""Tasks of a resolution that are looked at often as long as little is known, so that something is known soon."""

ENOUGH = 4
"""Tasks that have to have ended before the others are looked at by what is known."""


class PollSchedule:
    """Says for each task that is followed when to look at it next; learns by resolution. Times in seconds.

    The first tasks of a resolution, the scouts, are looked at often; the others wait for what those tell. From then on
    the looks lie where they tell the most, see `TaskTimes`.
    """

    def __init__(self, random: Random, *, shortest: float = 0.02, longest: float = 600.0) -> None:
        self._random = random
        self._shortest = shortest
        self._longest = longest
        self._learnt: dict[str, _Learnt] = {}

    def learn(self, resolution: str, seconds: Iterable[float]) -> None:
        """Tasks of this resolution, in earlier runs, took so long from their submission to their end."""
        self._of(resolution).times.learn(seconds)

    def knows(self, resolution: str) -> bool:
        """Whether enough tasks of this resolution have ended to go by their times."""
        return self._of(resolution).enough

    def watch(self, resolution: str) -> Watch:
        """A task that is followed from now on."""
        return Watch(self._of(resolution), self._bounded)

    def _of(self, resolution: str) -> _Learnt:
        return self._learnt.setdefault(resolution, _Learnt())

    def _bounded(self, wait: float) -> float:
        """A wait within its bounds, and spread: or a thousand tasks submitted together are looked at together."""
        return min(max(wait, self._shortest), self._longest) * (0.97 + 0.06 * self._random.random())


class _Learnt:
    """What is known of the tasks of one resolution, and how many scouts are out to know more."""

    def __init__(self) -> None:
        self.times = TaskTimes()
        self.scouts = 0

    @property
    def enough(self) -> bool:
        return self.times.count >= ENOUGH


class Watch:
    """One task that is followed: `wait`, then a look that ends in `looked` or `ended`, and at the end `close`."""

    def __init__(self, learnt: _Learnt, bounded: Callable[[float], float]) -> None:
        self._learnt = learnt
        self._bounded = bounded
        self._scout = False
        self._last = 0.0

    @property
    def depends_on_others(self) -> bool:
        """Whether little is known yet, so that the wait is best cut short as soon as enough is."""
        return not self._scout and not self._learnt.enough

    def wait(self, age: float) -> float:
        """How long to wait before the next look at the task, which has this age."""
        if self._learnt.enough:
            return self._bounded(self._learnt.times.next_look(age) - age)
        if not self._scout and self._learnt.scouts < SCOUTS:
            self._scout = True
            self._learnt.scouts += 1
        # A scout starts soon and slows down, so that quick services are noticed as well as slow ones.
        return self._bounded(0.25 + 0.25 * age if self._scout else 30.0)

    def looked(self, age: float) -> None:
        """A look at this age showed that it has not ended."""
        self._last = age
        self._learnt.times.reached(self, age)

    def ended(self, age: float, told: float | None = None) -> None:
        """A look at this age showed that it has; `told` is how long the service says that it took."""
        likely = (self._last + age) / 2 if told is None else told
        self.close()
        self._learnt.times.learn([min(max(likely, self._last), age)])

    def close(self) -> None:
        """It is not followed any more; does nothing a second time."""
        self._learnt.times.left(self)
        if self._scout:
            self._scout = False
            self._learnt.scouts -= 1
