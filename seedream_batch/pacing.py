"""When to look at a task, and when the next submission may go out: pure, the clock is an argument."""

from __future__ import annotations

from random import Random


class PollSchedule:
    """Learns how long tasks take, by resolution, and says when to look.

    The first look comes a little before the usual time, the next ones at a fraction of the age a task has reached, so
    that the delay in noticing stays small against the task's own time. Times in seconds.
    """

    def __init__(self, random: Random, *, shortest: float = 0.2, longest: float = 30.0) -> None:
        self._random = random
        self._shortest = shortest
        self._longest = longest
        self._usual: dict[str, float] = {}

    def learn(self, resolution: str, seconds: float) -> None:
        """A task of this resolution took so long from its submission to its end."""
        known = self._usual.get(resolution)
        self._usual[resolution] = seconds if known is None else known + 0.2 * (seconds - known)

    def wait(self, resolution: str, age: float, looks: int) -> float:
        """How long to wait before the next look at a task of this age that was looked at `looks` times."""
        usual = self._usual.get(resolution)
        if usual is None:
            # Nothing is known yet: start soon and grow, so that a quick service is noticed as well as a slow one.
            wait = 0.25 + 0.25 * age
        elif looks == 0:
            wait = 0.9 * usual - age
        else:
            wait = max(0.08 * usual, 0.2 * (age - usual))
        wait = min(max(wait, self._shortest), self._longest)
        # Spread, or a thousand tasks that were submitted together are looked at together.
        return wait * (0.9 + 0.2 * self._random.random())


class SubmissionPace:
    """Lets submissions out one at a time: at the configured rate, and not before a pause that the service asked for.

    Without a rate only the pauses count. Times in seconds of a monotonic clock.
    """

    def __init__(self, rate: float | None) -> None:
        self._interval = 1.0 / rate if rate else 0.0
        self._next = 0.0
        self._resume = 0.0
        self._slowdown = 0.0
        self._settled = 0.0

    def next_slot(self, now: float) -> float:
        """Takes the next slot; how long to wait for it."""
        at = max(now, self._next, self._resume)
        self._next = at + max(self._interval, self._slowdown)
        return at - now

    def refused(self, now: float, retry_after: float) -> None:
        """The service said "too many requests": everything waits, and goes on more slowly.

        What was under way when it first said so is refused as well; that does not slow things down again.
        """
        self._resume = max(self._resume, now + retry_after)
        if now >= self._settled:
            self._slowdown = min(max(2 * self._slowdown, 0.02), 5.0)
            self._settled = max(self._resume, now + 1.0)

    def accepted(self) -> None:
        """The service took one: the slowdown wears off."""
        self._slowdown = 0.0 if self._slowdown < 0.005 else self._slowdown * 0.97
