"""Keep a worker's lease: send heartbeats, and expire workers that stopped sending them."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable

from seedream_batch.engine.stop_control import Signal
from seedream_batch.manifest.async_writer import ManifestWriter
from seedream_batch.manifest.db.connection import LEASE
from seedream_batch.manifest.worker_store import GRACE

BEAT = 4.0
"""Seconds between two heartbeats."""

MARGIN = 2.0
"""Seconds before other workers may take over in which nothing is sent any more."""


class WorkerLease:
    """The lease of one worker.

    It sends heartbeats, expires dead workers, and knows until when its own lease is valid. `clock` returns Unix seconds
    that advance evenly, also while the machine sleeps.
    """

    def __init__(self, writer: ManifestWriter, *, clock: Callable[[], float], warn: Callable[[str], None]) -> None:
        self._writer = writer
        self._clock = clock
        self._heard_at = -math.inf
        self._warn = warn
        self._until = 0.0
        self._others: frozenset[int] = frozenset()
        """The other workers at the last heartbeat."""
        self.left_something = False
        """Whether a worker ended or expired, so that its rescue file may be in the output folder."""
        self.still_written = False
        """Whether an expired worker still runs, and may add to its rescue file."""
        self.heard = Signal()
        """Set at each heartbeat: tasks of other workers may have been released."""

    async def send_heartbeat(self) -> None:
        """Send a heartbeat; expire the workers whose lease ran out."""
        began = self._clock()
        beat = await self._writer.do(self._writer.manifest.workers.send_heartbeat, self._clock(), platform.node())
        # Counted from before the call: the lease cannot have started earlier.
        self._until = began + LEASE
        self.on_heartbeat(began)
        # Another worker may have expired it.
        self.left_something |= not self._others <= beat.others
        self._others = beat.others
        if beat.expired:
            self.left_something = True
            doubt = f"; {beat.in_doubt:,} of them may have been sent" if beat.in_doubt else ""
            self._warn(f"another worker died; taking over its tasks{doubt}")
        self.heard.set()

    def on_heartbeat(self, moment: float) -> None:
        """Record that the database session was alive at this moment of the clock."""
        self._heard_at = max(self._heard_at, moment)

    def counts_for(self, seconds: float) -> bool:
        """Return whether the lease holds now and for this many seconds: until then, what is sent has to be answered.

        Other workers wait for `GRACE` seconds after this worker's database session was last alive.
        """
        now = self._clock()
        return now < self._heard_at + GRACE - MARGIN and now + seconds < self._until
