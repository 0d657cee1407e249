"""Share one rate limiter among several runs; its state is text that the manifest stores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from seedream_batch.pacing.rate_limiter import AdaptiveRateLimiter

AHEAD = 0.25
"""Most seconds ahead for which slots are reserved: each slot of a killed run may be one more uncertain task."""


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
    while len(turns) < most and wait <= AHEAD:
        turns.append(earliest + pace.next_slot(earliest))
        wait = pace.until_slot(earliest)
    return json.dumps(pace.to_keep(), separators=(",", ":")), tuple(turns), max(0.0, wait - AHEAD / 2)
