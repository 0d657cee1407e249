"""Provide the clocks of a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunClock:
    """The clocks of a run: `unix` advances evenly, also while the machine sleeps; `monotonic` may stop then."""

    unix: Callable[[], float]
    monotonic: Callable[[], float]


def steady_clock() -> Callable[[], float]:
    """Return a clock of Unix seconds that advances evenly, also while the machine sleeps and if its clock is set."""
    # On Linux, CLOCK_MONOTONIC stops while the machine sleeps.
    kind = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    offset = time.time() - time.clock_gettime(kind)
    return lambda: offset + time.clock_gettime(kind)
