"""When the next submission may be sent: at the configured rate, or at one found by trying."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

START = 8.0
"""Initial submissions per second while the service's limit is unknown."""

DOUBLING = 0.7
"""Seconds in which the rate doubles until the service refuses a submission."""

AHEAD = 8.0
"""Largest ratio of the rate to the measured rate of accepted submissions: other things may hold up a run."""

MARGIN = 0.96
"""Share of a refused rate that the limiter returns to, and of the limit where it was just measured."""

DROP = 0.92
"""Share of the rate that remains after an isolated refusal: a service that stalls for a moment refuses what arrives
meanwhile, and what was measured then says little."""

LOW = 1.06
"""Upper bound of the limit as a multiple of the rate measured while growing: the average lags behind the rate."""

REGAIN = 1.5
"""Time constant in seconds for regaining the rate lost to a refusal."""

AGAIN = 3.0
"""Seconds after a pause within which another refusal means that the rate really is too high."""

APPROACH = 0.008
"""Growth per second after refusals in quick succession: the measured limit may be too low."""

PROBE = 0.0005
"""Growth per second after an isolated refusal: the limit may have been raised."""

MOMENTS = 4.0
"""Number of measuring windows to look back when searching for the best measured rate."""

SLOWEST = 0.2
"""Lowest rate in submissions per second, however often the service refuses."""

WINDOW = 256
"""Accepted submissions used to measure the rate."""

LATE = 0.05
"""Seconds by which a submission may be late without delaying the next one."""

MOST_HELD = 1.0
"""Most seconds that a submission waits after its intent was committed: a kill then leaves one more uncertain task."""

RESERVED = 0.25
"""Most seconds ahead for which slots are reserved: each slot of a killed run may be one more uncertain task."""


class AdaptiveRateLimiter:
    """Limits submissions to the configured rate, or else to one that it finds; sends none during a pause.

    Without a configured rate it starts slowly and grows while submissions are accepted. On "too many requests", the
    number accepted recently shows the service's limit; the rate then returns quickly to a little below the refused one,
    and grows slowly beyond it. A configured rate is an upper bound; refusals lower it in the same way. Times are
    seconds of a monotonic clock.

    Between taking its slot and leaving, a submission waits for its intent to be written to disk. A disk that stalls for
    a moment releases many at once, so they are spaced again right before they are sent (`leaving`).
    """

    def __init__(self, rate: float | None) -> None:
        self._bound = rate
        self._rate = rate if rate is not None else START
        self._ceiling: float | None = None
        """The rate at which the service last refused, or what was measured then."""
        self._sure = False
        """Whether the service had accepted that rate for a while."""
        self._accepted: deque[float] = deque(maxlen=WINDOW)
        self._next = 0.0
        self._leave = 0.0
        self._resume = 0.0
        self._settled = 0.0
        self._grown: float | None = None
        self._doubling = DOUBLING

    @property
    def rate(self) -> float:
        """The current rate in submissions per second."""
        return self._rate

    def until_slot(self, now: float) -> float:
        """Return the seconds until the next slot, without taking it."""
        return max(self._slot(now) - now, 0.0)

    def next_slot(self, now: float) -> float:
        """Take the next slot and return the seconds until it."""
        at = self._slot(now)
        self._next = at + 1.0 / self._rate
        return max(at - now, 0.0)

    def _slot(self, now: float) -> float:
        return max(now - LATE, self._next, self._resume, self._leave)

    def leaving(self, now: float) -> float:
        """Return the seconds a submission in its slot still has to wait; new slots come after those waiting."""
        at = min(max(now - LATE, self._leave), now + MOST_HELD)
        self._leave = at + 1.0 / self._rate
        return max(at - now, 0.0)

    def accepted(self, now: float) -> None:
        """Record that the service accepted a submission."""
        self._accepted.append(now)
        # The service could not refuse anything while nothing was submitted, so idle time does not count.
        passed = 0.0 if self._grown is None else min(max(now - self._grown, 0.0), 0.5)
        # Several runs report here, and their times do not arrive in order.
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
        """Whether the refused rate is about the configured one, which is hardly wrong."""
        return self._bound is not None and self._ceiling is not None and self._ceiling > 0.98 * self._bound

    def refused(self, now: float, retry_after: float) -> None:
        """Record "too many requests": pause for `retry_after` seconds, then go on at a lower rate.

        Requests already in flight at the first refusal are refused as well; those do not lower the rate again.
        """
        measured = self._measured(now)
        self._resume = max(self._resume, now + retry_after)
        if now < self._settled:
            return
        limit_known = self._ceiling is not None or self._bound is not None
        ceiling = self._rate
        self._sure = False
        if measured is None:
            lower, ceiling = 0.5 * self._rate, 0.85 * self._rate
        elif limit_known and now > self._settled + AGAIN:
            lower = max(MARGIN * measured, DROP * self._rate)
            self._sure = True
        else:
            ceiling = DROP * ceiling if limit_known else min(ceiling, LOW * measured)
            lower = MARGIN * min(measured, ceiling)
        slowest = SLOWEST if self._bound is None else min(SLOWEST, self._bound)
        self._rate = max(min(lower, 0.95 * self._rate), slowest)
        self._grown = None
        self._settled = max(self._resume, now) + 1.0
        if measured is None:
            # Near a low limit too few are accepted before the next refusal to measure it; slower growth gives enough.
            self._doubling *= 2.0
        if measured is not None or limit_known:
            self._ceiling = ceiling
            self._accepted.clear()

    def to_keep(self) -> dict[str, float | list[float] | None]:
        """Return the state that another run needs to continue, as JSON values for `kept`."""
        return {
            "rate": self._rate, "ceiling": self._ceiling, "sure": self._sure, "next": self._next, "leave": self._leave,
            "resume": self._resume, "settled": self._settled, "grown": self._grown, "doubling": self._doubling,
            "accepted": [round(at, 3) for at in self._accepted],
        }  # fmt: skip

    @classmethod
    def kept(cls, known: Mapping[str, Any], rate: float | None, now: float) -> AdaptiveRateLimiter:
        """Restore a saved state, adapted to the configured rate and to the current time.

        A rate that was saved applies only below the configured one. Slots that lie too far ahead, as after a clock was
        set back, are moved close.
        """
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
        """Return the highest rate of accepted submissions over recent windows; None if there were too few.

        The latest window alone could be one in which the service stalled.
        """
        window = max(1.0, 8 / self._rate)
        # Count from the end of the last pause: nothing was sent during it.
        since = max(now - MOMENTS * window, self._resume)
        recent = [at for at in self._accepted if at > since]
        if len(recent) < 4:
            return None
        most, first = 0, 0
        for last, at in enumerate(recent):
            while recent[first] <= at - window:
                first += 1
            most = max(most, last - first + 1)
        # Less than a full window has passed at the start: divide by the time there is.
        return most / min(window, max(now - recent[0], 1e-3))


@dataclass(frozen=True, slots=True)
class RateFeedback:
    """What one run has heard from the service since it last reserved slots; times by the shared clock."""

    accepted: Sequence[float] = ()
    refused: Sequence[tuple[float, float]] = ()
    """When the service answered "too many requests", and for how many seconds it wants none."""


def reserve_slots(
    state: str, rate: float | None, now: float, most: int, *, lead: float, news: RateFeedback
) -> tuple[str, tuple[float, ...], float]:
    """Reserve up to `most` slots; return the new state, the slots' times, and the seconds until the next try.

    `state` is the stored state, empty at first; `rate` is the job's, None if it has to be found. No slot is earlier
    than `lead` seconds from now, the time it takes to commit an intent, and none is so late that a committed intent
    would wait long for it.
    """
    pace = AdaptiveRateLimiter.kept(json.loads(state), rate, now) if state else AdaptiveRateLimiter(rate)
    for at, pause in news.refused:
        pace.refused(at, pause)
    for at in news.accepted:
        pace.accepted(at)
    turns: list[float] = []
    earliest = now + lead
    wait = pace.until_slot(earliest)
    while len(turns) < most and wait <= RESERVED:
        turns.append(earliest + pace.next_slot(earliest))
        wait = pace.until_slot(earliest)
    return json.dumps(pace.to_keep(), separators=(",", ":")), tuple(turns), max(0.0, wait - RESERVED / 2)
