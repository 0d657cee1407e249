"""When to poll a running task, learnt from how long earlier tasks took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from random import Random

from seedream_batch.pacing.task_durations import TaskTimes

PROBES = 6
"""Probes per resolution: tasks that are polled often while little is known, to learn durations soon."""

SLOWER = 1.5
"""Growth factor of a probe's poll interval."""

SOON = 0.5
"""Seconds added to a probe's age when computing its interval, so that the first ones are not too short."""

SPREAD = 0.02
"""Largest share by which a wait is lengthened at random, so that polls do not coincide."""

MOMENT = 0.1
"""Width in seconds of a poll bucket."""

MOST_LOOKS = 80
"""Most polls per bucket; further ones move to later buckets."""

TIDY = 60.0
"""Seconds between removals of past buckets."""

ENOUGH = 4
"""Ended tasks needed before the others are polled by learnt durations; one is enough if it was completed.
Failures often come at once, and say little about the duration of other tasks."""

UNTOLD = 30.0
"""Seconds between two polls of a task that is no probe, while durations are unknown."""


class PollSchedule:
    """Decides when to poll each task next, learning durations per resolution. Times in seconds.

    The first tasks of a resolution, the probes, are polled often; the others wait for what those find. After that,
    polls are placed where they are most likely to notice an end, see `TaskTimes`.
    """

    def __init__(
        self, random: Random, *, monotonic: Callable[[], float], shortest: float = 0.02, longest: float = 600.0
    ) -> None:
        self._random = random
        self._shortest = shortest
        self._longest = longest
        self._monotonic = monotonic
        self._learnt: dict[str, _Learnt] = {}
        self._booked: Counter[int] = Counter()
        """Polls in future buckets, by bucket number."""
        self._tidied = monotonic()

    def learn(self, resolution: str, seconds: Iterable[float]) -> None:
        """Add durations of tasks of this resolution from earlier runs, from submission to end."""
        self._of(resolution).times.learn(seconds)

    def learnt(self) -> dict[str, list[float]]:
        """Return durations by resolution for `learn` in another run; empty if no task has ended in this one."""
        if not any(learnt.new for learnt in self._learnt.values()):
            return {}
        return {
            resolution: [round(took, 3) for took in learnt.times.kept]
            for resolution, learnt in self._learnt.items()
            if learnt.enough
        }

    def knows(self, resolution: str) -> bool:
        """Return whether enough tasks of this resolution have ended to use their durations."""
        return self._of(resolution).enough

    def watch(self, resolution: str) -> TaskPoller:
        """Start following a task."""
        return TaskPoller(self._of(resolution), self._bounded)

    def _of(self, resolution: str) -> _Learnt:
        return self._learnt.setdefault(resolution, _Learnt())

    def _bounded(self, wait: float) -> float:
        """Clamp a wait, lengthen it a little at random, and move it out of full buckets.

        A wait is never shortened: a poll just before many tasks end would be wasted.
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
            self._booked = Counter({at: count for at, count in self._booked.items() if at >= int(now / MOMENT)})
        return at - now


class _Learnt:
    """Known durations for one resolution, and the number of active probes."""

    def __init__(self) -> None:
        self.times = TaskTimes()
        self.probes = 0
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


class TaskPoller:
    """One followed task: `wait`, then a poll reported by `looked` or `ended`, and at the end `close`."""

    def __init__(self, learnt: _Learnt, bounded: Callable[[float], float]) -> None:
        self._learnt = learnt
        self._bounded = bounded
        self._scout = False
        self._last = 0.0

    @property
    def depends_on_others(self) -> bool:
        """Whether durations are still unknown, so that the wait should end as soon as they are known."""
        return not self._scout and not self._learnt.enough

    def wait(self, age: float) -> float:
        """Return the seconds to wait before the next poll of the task, given its age."""
        if self._learnt.enough:
            return self._bounded(self._learnt.times.next_look(age) - age)
        if self._scout:
            return self._bounded((SOON + age) * (SLOWER - 1.0))
        if self._learnt.probes == PROBES:
            return self._bounded(UNTOLD)
        # A probe starts soon and slows down, so that it suits quick services as well as slow ones. Each probe polls at
        # different ages, so that together they cover more of them.
        self._scout = True
        self._learnt.probes += 1
        return self._bounded((SOON + age) * (SLOWER ** (1.0 + (self._learnt.probes - 1) / PROBES) - 1.0))

    def looked(self, age: float) -> None:
        """Record that a poll at this age found the task still running."""
        self._last = age
        self._learnt.times.reached(self, age)

    def ended(self, age: float, took: float | None = None, *, failed: bool = False) -> None:
        """Record that a poll at this age found the task ended; `took` is the duration the service reports, if any."""
        likely = (self._last + age) / 2 if took is None else took
        self.close()
        self._learnt.ended(min(max(likely, self._last), age), failed=failed)

    def close(self) -> None:
        """Stop following the task. Idempotent."""
        self._learnt.times.left(self)
        if self._scout:
            self._scout = False
            self._learnt.probes -= 1
