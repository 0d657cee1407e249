"""The turns of submissions that several runs take from one pace, which is kept as text between them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from seedream_batch.pacing.rate_limiter import SubmissionPace

AHEAD = 0.25
"""Seconds for which turns are given out: if a run is killed, each turn that it has taken is one more doubt."""


@dataclass(frozen=True, slots=True)
class News:
    """What one run has heard from the service since it last took turns; times by the clock that all runs share."""

    accepted: Sequence[float] = ()
    refused: Sequence[tuple[float, float]] = ()
    """When the service said "too many requests", and the seconds for which it wants none."""


def take_turns(
    state: str, rate: float | None, now: float, most: int, *, lead: float, news: News
) -> tuple[str, tuple[float, ...], float]:
    """Up to `most` turns: what is to be kept, their times, and in how many seconds the next one could be had.

    `state` is what was kept the last time, empty at first; `rate` is that of the job, None where it is to be found. No
    turn comes before `lead` seconds have passed, which is what it takes to write an intent down; and none so late that
    an intent would have to wait long for it.
    """
    pace = SubmissionPace.kept(json.loads(state), rate, now) if state else SubmissionPace(rate)
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
