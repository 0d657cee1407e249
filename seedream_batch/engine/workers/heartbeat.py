"""A run as one of several workers: it is heard of, hears of others, and knows for how long its word counts."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable

from seedream_batch.engine.stop_control import Happening
from seedream_batch.manifest import Manifest
from seedream_batch.manifest.async_writer import ManifestWriter
from seedream_batch.manifest.db.connection import LEASE
from seedream_batch.manifest.worker_store import GRACE

BEAT = 4.0
"""Seconds between two signs of life."""

MARGIN = 2.0
"""Seconds before others may take over in which nothing is sent any more."""


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
        self._heard_at = -math.inf
        self._told = told
        self._until = 0.0
        self._others: frozenset[int] = frozenset()
        """The other workers there were at the last sign of life."""
        self.left_something = False
        """Whether a worker is gone, so that what it could not write down may lie here."""
        self.still_written = False
        """Whether one that was taken away is alive for all that, and may write something down yet."""
        self.left_behind: set[int] = set()
        """Tasks that this run could not bring to their end, and leaves to others, or to a later run."""
        self.heard = Happening()
        """Set at each sign of life: tasks may be free that others had in hand."""

    async def beat(self) -> None:
        """Gives a sign of life; takes away the workers that have given none for too long."""
        began = self._clock()
        beat = await self._writer.do(Manifest.beat, self._clock(), platform.node())
        # From before it was asked for: the lease began no sooner.
        self._until = began + LEASE
        self.heard_of(began)
        # Somebody else may have taken it away.
        self.left_something |= not self._others <= beat.others
        self._others = beat.others
        if beat.buried:
            self.left_something = True
            doubt = f"; {beat.in_doubt:,} of its tasks may have been sent" if beat.in_doubt else ""
            self._told(f"a worker is gone, and its tasks are taken over{doubt}")
        self.heard.set()

    def heard_of(self, moment: float) -> None:
        """The session was there at this moment of the clock."""
        self._heard_at = max(self._heard_at, moment)

    def counts_for(self, seconds: float) -> bool:
        """Whether the word of this run counts now, and its lease for so long: what is sent has to be answered by then.

        Others wait for `GRACE` seconds after its session was there the last time.
        """
        now = self._clock()
        return now < self._heard_at + GRACE - MARGIN and now + seconds < self._until
