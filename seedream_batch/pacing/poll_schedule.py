"""When to look at a task that is at work, learnt from how long others took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from random import Random

from seedream_batch.pacing.task_durations import TaskTimes

SCOUTS = 6
"""Tasks of a resolution that are looked at often as long as little is known, so that something is known soon."""

SLOWER = 1.5
"""By how much the time between two looks of a scout grows from one to the next, ..."""

SOON = 0.5
"""... as if it had been looked at so many seconds before it was submitted."""

SPREAD = 0.02
"""By which part of itself a wait may be longer, so that looks do not come together."""

MOMENT = 0.1
"""Seconds in which ..."""

MOST_LOOKS = 80
"""... no more looks than these are meant to be; those that would be go to the next ones."""

TIDY = 60.0
"""Seconds after which moments that have passed are forgotten."""

ENOUGH = 4
"""Tasks that have to have ended before the others are looked at by what is known; one is enough if it was completed.
What fails often does so at once, and says little of the rest."""

UNTOLD = 30.0
"""Seconds between two looks at a task that is no scout, as long as nothing is known."""


class PollSchedule:
    """Says for each task that is followed when to look at it next; learns by resolution. Times in seconds.

    The first tasks of a resolution, the scouts, are looked at often; the others wait for what those tell. From then on
    the looks lie where they tell the most, see `TaskTimes`.
    """

    def __init__(
        self,
        random: Random,
        *,
        monotonic: Callable[[], float],
        shortest: float = 0.02,
        longest: float = 600.0,
    ) -> None:
        self._random = random
        self._shortest = shortest
        self._longest = longest
        self._monotonic = monotonic
        self._learnt: dict[str, _Learnt] = {}
        self._booked: Counter[int] = Counter()
        """Looks in moments to come, by the number of the moment."""
        self._tidied = monotonic()

    def learn(self, resolution: str, seconds: Iterable[float]) -> None:
        """Tasks of this resolution, in earlier runs, took so long from their submission to their end."""
        self._of(resolution).times.learn(seconds)

    def learnt(self) -> dict[str, list[float]]:
        """What another run can `learn`, by resolution; empty if no task has ended since this one did."""
        if not any(one.new for one in self._learnt.values()):
            return {}
        return {name: [round(took, 3) for took in one.times.kept] for name, one in self._learnt.items() if one.enough}

    def knows(self, resolution: str) -> bool:
        """Whether enough tasks of this resolution have ended to go by their times."""
        return self._of(resolution).enough

    def watch(self, resolution: str) -> Watch:
        """A task that is followed from now on."""
        return Watch(self._of(resolution), self._bounded)

    def _of(self, resolution: str) -> _Learnt:
        return self._learnt.setdefault(resolution, _Learnt())

    def _bounded(self, wait: float) -> float:
        """A wait within its bounds, and a little longer, so that tasks submitted together are not looked at together.

        Never shorter: just before a moment at which many tasks end, a look is lost.
        """
        now = self._monotonic()
        at = now + min(max(wait, self._shortest), self._longest) * (1.0 + SPREAD * self._random.random())
        moment = int(at / MOMENT)
        if self._booked[moment] >= MOST_LOOKS:
            while self._booked[moment] >= MOST_LOOKS:
                moment += 1
            at = MOMENT * (moment + self._random.random())
        self._booked[moment] += 1
        if now > self._tidied + TIDY:
            self._tidied = now
            self._booked = Counter({one: count for one, count in self._booked.items() if one >= int(now / MOMENT)})
        return at - now


class _Learnt:
    """What is known of the tasks of one resolution, and how many scouts are out to know more."""

    def __init__(self) -> None:
        self.times = TaskTimes()
        self.scouts = 0
        self.new = False
        """Whether a task has ended in this run."""
        self._one_was_completed = False

    @property
    def enough(self) -> bool:
        return self._one_was_completed or self.times.count >= ENOUGH

    def ended(self, seconds: float, *, failed: bool) -> None:
        self.times.learn([seconds])
        self.new = True
        self._one_was_completed = self._one_was_completed or not failed


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
        if self._scout:
            return self._bounded((SOON + age) * (SLOWER - 1.0))
        if self._learnt.scouts == SCOUTS:
            return self._bounded(UNTOLD)
        # A scout starts soon and slows down, so that quick services are noticed as well as slow ones; each looks at
        # other ages than the others do.
        self._scout = True
        self._learnt.scouts += 1
        return self._bounded((SOON + age) * (SLOWER ** (1.0 + (self._learnt.scouts - 1) / SCOUTS) - 1.0))

    def looked(self, age: float) -> None:
        """A look at this age showed that it has not ended."""
        self._last = age
        self._learnt.times.reached(self, age)

    def ended(self, age: float, told: float | None = None, *, failed: bool = False) -> None:
        """A look at this age showed that it has; `told` is how long the service says that it took."""
        likely = (self._last + age) / 2 if told is None else told
        self.close()
        self._learnt.ended(min(max(likely, self._last), age), failed=failed)

    def close(self) -> None:
        """It is not followed any more; does nothing a second time."""
        self._learnt.times.left(self)
        if self._scout:
            self._scout = False
            self._learnt.scouts -= 1
