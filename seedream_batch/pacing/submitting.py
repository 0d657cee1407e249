"""When the next submission may go out: at the configured rate, or at one that is found."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

START = 8.0
"""Submissions a second to begin with where nothing is known of the service's limit."""

DOUBLING = 0.7
"""Seconds in which the rate doubles until the service has refused a submission."""

AHEAD = 8.0
"""How many times as fast as submissions are really accepted the rate may grow: a run may be held up by other things."""

APPROACH = 0.012
"""By how much a second raises the rate after the first refusal: what was measured in the growth may be too low."""

MARGIN = 0.97
"""The part of the limit, as it was measured, at which submissions go on after a refusal."""

PROBE = 0.0005
"""By how much a second raises the rate after further ones: the limit may have been raised, and a measurement be low."""

SLOWEST = 0.2
"""Submissions a second that are tried however often the service refuses."""

WINDOW = 256
"""Accepted submissions by which the rate is measured."""

LATE = 0.05
"""Seconds by which a submission may be late without the next one being so, too."""

MOST_HELD = 1.0
"""Seconds that a submission may wait once its intent is written down: one that is never sent is one more doubt."""


class SubmissionPace:
    """Lets submissions out one at a time: at the configured rate, else at one that it finds; never before a pause ends.

    Without a configured rate it starts gently and grows while submissions are accepted. When the service says "too many
    requests", what it has accepted in the last moments tells its limit; from there on the rate stays a little below,
    and forgets slowly. A configured rate is a bound; refusals lower it in the same way. Times in seconds of a monotonic
    clock.

    Between its slot and its way out, the intent of a submission is written to the disk, and a disk that is busy for a
    moment lets many go at once afterwards: so they are spaced again right before they leave.
    """

    def __init__(self, rate: float | None) -> None:
        self._bound = rate
        self._rate = rate if rate is not None else START
        self._refusals = 0
        self._accepted: deque[float] = deque(maxlen=WINDOW)
        self._next = 0.0
        self._leave = 0.0
        self._resume = 0.0
        self._settled = 0.0
        self._grown: float | None = None
        self._doubling = DOUBLING

    @property
    def rate(self) -> float:
        """Submissions a second, as far as this goes."""
        return self._rate

    def until_slot(self, now: float) -> float:
        """How long to wait for the next slot, which is not taken."""
        return max(self._slot(now) - now, 0.0)

    def next_slot(self, now: float) -> float:
        """Takes the next slot; how long to wait for it."""
        at = self._slot(now)
        self._next = at + 1.0 / self._rate
        return max(at - now, 0.0)

    def _slot(self, now: float) -> float:
        return max(now - LATE, self._next, self._resume, self._leave)

    def leaving(self, now: float) -> float:
        """How long a submission in its slot has to wait before it leaves; no new slot comes before those that wait."""
        at = min(max(now - LATE, self._leave), now + MOST_HELD)
        self._leave = at + 1.0 / self._rate
        return max(at - now, 0.0)

    def accepted(self, now: float) -> None:
        """The service took one."""
        self._accepted.append(now)
        # Time without submissions is no time in which the service could have refused one.
        passed = 0.0 if self._grown is None else min(max(now - self._grown, 0.0), 0.5)
        # What several runs tell does not come in order.
        self._grown = now if self._grown is None else max(now, self._grown)
        if self._refusals == 0:
            rate = self._rate * 2.0 ** (passed / self._doubling)
        else:
            rate = self._rate * (1.0 + passed * (APPROACH if self._refusals == 1 else PROBE))
        speed = len(self._accepted) / max(now - self._accepted[0], 0.1)
        self._rate = max(self._rate, min(rate, AHEAD * speed))
        if self._bound is not None:
            self._rate = min(self._rate, self._bound)

    def refused(self, now: float, retry_after: float) -> None:
        """The service said "too many requests": everything waits, and goes on more slowly.

        What was under way when it first said so is refused as well; that does not slow things down again.
        """
        self._resume = max(self._resume, now + retry_after)
        if now < self._settled:
            return
        measured = self._measured(now)
        lower = 0.5 * self._rate if measured is None else MARGIN * measured
        slowest = SLOWEST if self._bound is None else min(SLOWEST, self._bound)
        self._rate = max(min(lower, 0.95 * self._rate), slowest)
        self._grown = None
        self._settled = max(self._resume, now) + 1.0
        if measured is None:
            # Near a low limit few are accepted before the next refusal: with less haste there will be enough.
            self._doubling *= 2.0
        else:
            self._refusals += 1
            self._accepted.clear()

    def to_keep(self) -> dict[str, float | list[float] | None]:
        """What another run has to know to go on with this pace; for `kept`."""
        return {
            "rate": self._rate, "refusals": self._refusals, "next": self._next, "leave": self._leave,
            "resume": self._resume, "settled": self._settled, "grown": self._grown, "doubling": self._doubling,
            "accepted": [round(at, 3) for at in self._accepted],
        }  # fmt: skip

    @classmethod
    def kept(cls, known: Mapping[str, Any], rate: float | None, now: float) -> SubmissionPace:
        """The pace that was kept. A configured rate that has changed since counts anew, as does a clock set back."""
        pace = cls(rate)
        if rate is None or known["rate"] < rate:
            pace._rate = known["rate"]
        pace._refusals, pace._doubling, pace._grown = known["refusals"], known["doubling"], known["grown"]
        pace._resume, pace._settled = known["resume"], known["settled"]
        latest = max(now, pace._resume) + 2 * MOST_HELD + 1.0 / pace._rate
        pace._next, pace._leave = min(known["next"], latest), min(known["leave"], latest)
        pace._accepted.extend(known["accepted"])
        return pace

    def _measured(self, now: float) -> float | None:
        """What the service accepted a second in the last moments; None where too few went out to tell."""
        recent = [at for at in self._accepted if at > now - max(1.0, 8 / self._rate)]
        if len(recent) < 4:
            return None
        return len(recent) / max(now - recent[0], 1e-3)
