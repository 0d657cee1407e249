"""When the next submission may go out: at the configured rate, or at one that is found."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

START = 8.0
"""Submissions a second to begin with where nothing is known of the service's limit."""

DOUBLING = 0.7
"""Seconds in which the rate doubles until the service has refused a submission."""

AHEAD = 8.0
"""How many times as fast as submissions are really accepted the rate may grow: a run may be held up by other things."""

MARGIN = 0.96
"""The part of a rate that was refused to which submissions come back, and of the limit where it was just measured."""

DROP = 0.92
"""The part of a rate at which submissions go on after a refusal that comes alone: a service that was held up for a
moment refuses what has come meanwhile, and what was measured then says little."""

LOW = 1.06
"""How many times what was measured in a growth the limit may be: at first less went out than in the end."""

REGAIN = 1.5
"""Seconds in which most of what a refusal took is had again."""

AGAIN = 3.0
"""Seconds after the pause for a refusal within which another one says that the rate is really too high."""

APPROACH = 0.008
"""By how much a second raises the rate from there on after refusals that came together: it may be taken for too low."""

PROBE = 0.0005
"""By how much it does so after one that came alone: the limit may have been raised."""

MOMENTS = 4.0
"""How many times as far back as the rate of a moment is measured the best of them is looked for."""

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
    requests", what it has accepted in the last moments tells its limit; from there on the rate comes back quickly to a
    little below the one that was refused, and grows slowly beyond it. A configured rate is a bound; refusals lower it
    in the same way. Times in seconds of a monotonic clock.

    Between its slot and its way out, the intent of a submission is written to the disk, and a disk that is busy for a
    moment lets many go at once afterwards: so they are spaced again right before they leave.
    """

    def __init__(self, rate: float | None) -> None:
        self._bound = rate
        self._rate = rate if rate is not None else START
        self._ceiling: float | None = None
        """The rate at which the service refused the last time, or what was measured then."""
        self._sure = False
        """Whether that was a rate which it had taken for a while."""
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
        if self._ceiling is None:
            rate = self._rate * 2.0 ** (passed / self._doubling)
        else:
            lost = max(MARGIN * self._ceiling - self._rate, 0.0)
            growth = PROBE if self._sure and not self._as_configured else APPROACH
            rate = self._rate * (1.0 + passed * growth) + lost * (1.0 - math.exp(-passed / REGAIN))
        speed = len(self._accepted) / max(now - self._accepted[0], 0.1)
        self._rate = max(self._rate, min(rate, AHEAD * speed))
        if self._bound is not None:
            self._rate = min(self._rate, self._bound)

    @property
    def _as_configured(self) -> bool:
        """Whether the rate that was refused is about the one that the job states: that will hardly be wrong."""
        return self._bound is not None and self._ceiling is not None and self._ceiling > 0.98 * self._bound

    def refused(self, now: float, retry_after: float) -> None:
        """The service said "too many requests": everything waits, and goes on more slowly.

        What was under way when it first said so is refused as well; that does not slow things down again.
        """
        measured = self._measured(now)
        self._resume = max(self._resume, now + retry_after)
        if now < self._settled:
            return
        found = self._ceiling is not None or self._bound is not None
        ceiling = self._rate
        self._sure = False
        if measured is None:
            lower, ceiling = 0.5 * self._rate, 0.85 * self._rate
        elif found and now > self._settled + AGAIN:
            lower = max(MARGIN * measured, DROP * self._rate)
            self._sure = True
        else:
            ceiling = DROP * ceiling if found else min(ceiling, LOW * measured)
            lower = MARGIN * min(measured, ceiling)
        slowest = SLOWEST if self._bound is None else min(SLOWEST, self._bound)
        self._rate = max(min(lower, 0.95 * self._rate), slowest)
        self._grown = None
        self._settled = max(self._resume, now) + 1.0
        if measured is None:
            # Near a low limit few are accepted before the next refusal: with less haste there will be enough.
            self._doubling *= 2.0
        if measured is not None or found:
            self._ceiling = ceiling
            self._accepted.clear()

    def to_keep(self) -> dict[str, float | list[float] | None]:
        """What another run has to know to go on with this pace; for `kept`."""
        return {
            "rate": self._rate, "ceiling": self._ceiling, "sure": self._sure, "next": self._next, "leave": self._leave,
            "resume": self._resume, "settled": self._settled, "grown": self._grown, "doubling": self._doubling,
            "accepted": [round(at, 3) for at in self._accepted],
        }  # fmt: skip

    @classmethod
    def kept(cls, known: Mapping[str, Any], rate: float | None, now: float) -> SubmissionPace:
        """The pace that was kept. A configured rate that has changed since counts anew, as does a clock set back."""
        pace = cls(rate)
        if rate is None or known["rate"] < rate:
            pace._rate = known["rate"]
        pace._ceiling, pace._sure = known["ceiling"], known["sure"]
        pace._doubling, pace._grown = known["doubling"], known["grown"]
        pace._resume, pace._settled = known["resume"], known["settled"]
        latest = max(now, pace._resume) + 2 * MOST_HELD + 1.0 / pace._rate
        pace._next, pace._leave = min(known["next"], latest), min(known["leave"], latest)
        pace._accepted.extend(known["accepted"])
        return pace

    def _measured(self, now: float) -> float | None:
        """The most that the service accepted a second in the last moments; None where too few went out to tell.

        The last moment alone may be one in which the service was held up.
        """
        window = max(1.0, 8 / self._rate)
        # From the end of the last pause on: nothing went out in it.
        since = max(now - MOMENTS * window, self._resume)
        recent = [at for at in self._accepted if at > since]
        if len(recent) < 4:
            return None
        most, first = 0, 0
        for last, at in enumerate(recent):
            while recent[first] <= at - window:
                first += 1
            most = max(most, last - first + 1)
        # Of less than a whole window, as much as there is.
        return most / min(window, max(now - recent[0], 1e-3))
