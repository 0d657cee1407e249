"""A run as one of several workers: it is heard of, hears of others, and knows for how long its word counts."""

from __future__ import annotations

import platform
from collections.abc import Callable

from seedream_batch.engine.waiting import Happening
from seedream_batch.manifest.connection import LEASE
from seedream_batch.manifest.writer import ManifestWriter

BEAT = 5.0
"""Seconds between two signs of life."""


class Membership:
    """The place of a run among the workers of a manifest. `clock` goes on evenly, also while the machine sleeps."""

    def __init__(
        self,
        writer: ManifestWriter,
        *,
        clock: Callable[[], float],
        told: Callable[[str], None],
    ) -> None:
        self._writer = writer
        self._clock = clock
        self._told = told
        self._until = 0.0
        self.others = 0
        """How many other workers there were at the last sign of life."""
        self.left_something = False
        """Whether a worker was taken away, so that what it could not write down may lie here."""
        self.left_behind: set[int] = set()
        """Tasks that this run could not bring to their end, and leaves to others, or to a later run."""
        self.heard = Happening()
        """Set at each sign of life: tasks may be free that others had in hand."""

    async def beat(self) -> None:
        """Gives a sign of life; takes away the workers that have given none for too long."""
        began = self._clock()
        beat = await self._writer.do(lambda m: m.beat(self._clock(), platform.node()))
        # From before it was asked for: the lease began no sooner.
        self._until = began + LEASE
        self.others = beat.others
        if beat.buried:
            self.left_something = True
            doubt = f"; {beat.in_doubt:,} of its tasks may have been sent" if beat.in_doubt else ""
            self._told(f"a worker is gone, and its tasks are taken over{doubt}")
        self.heard.set()

    def counts_for(self, seconds: float) -> bool:
        """Whether the word of this run is sure to count for so long: what is sent now has to be answered by then."""
        return self._clock() + seconds < self._until
