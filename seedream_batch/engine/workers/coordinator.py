"""Coordinate a run with other workers: not at all if it owns the manifest, else by lease, claims and ownership."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial

from seedream_batch.client.service import longest_submission
from seedream_batch.engine.clock import RunClock
from seedream_batch.engine.events import RunOptions
from seedream_batch.engine.stop_control import Signal, StopControl
from seedream_batch.engine.workers.claim_batcher import ClaimBatcher
from seedream_batch.engine.workers.heartbeat import BEAT, WorkerLease
from seedream_batch.manifest import Manifest
from seedream_batch.manifest.async_writer import ManifestWriter
from seedream_batch.manifest.db.connection import LEASE
from seedream_batch.manifest.rescue_log import orphaned_logs
from seedream_batch.manifest.task_queue import Claim, Claimed, Intent
from seedream_batch.model.job import Budget, Job
from seedream_batch.pacing import AdaptiveRateLimiter

AHEAD = 64
"""Tasks read per query."""

AHEAD_OF_OTHERS = 16
"""Tasks that a worker takes per query on a shared manifest."""


class Coordinator:
    """Coordinates a run that owns its manifest alone: it waits for nobody, and paces itself."""

    def __init__(
        self, writer: ManifestWriter, job: Job, clock: RunClock, control: StopControl, limiter: AdaptiveRateLimiter
    ) -> None:
        self._writer = writer
        self._job = job
        self._clock = clock
        self._control = control
        self._limiter = limiter
        self._claim_each = partial(_claim_each, writer.manifest, job.budget, clock.unix)
        self.left_behind: set[int] = set()
        """Tasks that this run could not finish, and leaves to other workers or a later run."""
        self.blocked_by = ""
        """Which budget rejected the last claim; tasks in flight may still settle for less than their reservation."""

    @asynccontextmanager
    async def heartbeats(self, _on_error: Callable[[Exception], None]) -> AsyncIterator[None]:
        """Send heartbeats meanwhile, also while requests are outstanding."""
        yield

    async def start(self) -> None:
        """Send the first heartbeat."""

    async def unlock_startup(self) -> None:
        """Let other workers join."""

    def page_size(self, _in_flight: int) -> int:
        """Return how many tasks to read per query; no other worker can start the tasks that this one owns."""
        return AHEAD

    async def has_news(self) -> bool:
        """Return whether dead workers may have left tasks since the last call; import the task ids they left."""
        return False

    async def wait_for_others(self, _options: RunOptions, _in_flight: Sequence[int], _blocked: Collection[int]) -> bool:
        """Wait for work that other workers leave, with nothing left to do here; return whether there is any."""
        return False

    async def wait_for_change(self, _changed: Signal) -> bool:
        """Wait for a change here or by another worker; return False, at once, if there are no others."""
        return False

    async def others_may_settle(self) -> bool:
        """Return whether other workers have tasks that may release a part of the budget, after a pause."""
        return False

    def longest_wait(self, seconds: float) -> float:
        """Return for how many of these seconds to wait before looking for the work of others again."""
        return seconds

    def accepted(self) -> None:
        """Record an accepted submission for the rate."""
        self._limiter.accepted(self._clock.monotonic())

    def refused(self, seconds: float) -> None:
        """Pause submissions for this many seconds, and submit more slowly afterwards."""
        self._limiter.refused(self._clock.monotonic(), seconds)

    async def wait_for_turn(self) -> None:
        """Wait until the next task may be submitted. Raise `RunStopped`."""
        await self._control.rest(self._limiter.next_slot(self._clock.monotonic()))

    async def claim(self, intent: Intent) -> tuple[Claim | None, float]:
        """Return the committed intent, if any, and the seconds to wait before it is sent."""
        return await self.claim_now(intent), self._limiter.leaving(self._clock.monotonic())

    async def claim_now(self, intent: Intent) -> Claim | None:
        """Return the committed intent without a turn, if any."""
        claimed = await self._writer.join(self._claim_each, intent)
        self.blocked_by = claimed.stopped_by or self.blocked_by
        return claimed.claims[0] if claimed.claims else None

    async def resend_turn(self) -> float:
        """Return the seconds to wait before a request is sent that has an intent already. Raise `RunStopped`."""
        return 0.0

    def lease_covers(self, _body: str) -> bool:
        """Return whether the lease outlives a request with this body."""
        return True


class SharedCoordinator(Coordinator):
    """Coordinates a run that is one of several workers on a shared manifest."""

    def __init__(
        self, writer: ManifestWriter, job: Job, clock: RunClock, control: StopControl, limiter: AdaptiveRateLimiter
    ) -> None:
        super().__init__(writer, job, clock, control, limiter)
        self._lease = WorkerLease(writer, clock=clock.unix, warn=control.warn)
        self._claims = ClaimBatcher(
            writer, job.budget, job.run.rate, clock=clock.unix, monotonic=clock.monotonic,
            may_go_on=control.may_submit, rest=control.rest, heard=self._lease.on_heartbeat,
        )  # fmt: skip

    @asynccontextmanager
    async def heartbeats(self, on_error: Callable[[Exception], None]) -> AsyncIterator[None]:
        sending = asyncio.create_task(self._send_heartbeats(on_error))
        try:
            yield
        finally:
            sending.cancel()

    async def _send_heartbeats(self, on_error: Callable[[Exception], None]) -> None:
        try:
            while True:
                await asyncio.sleep(BEAT)
                await self._lease.send_heartbeat()
        except Exception as error:  # noqa: BLE001 - raised again at the end of the run
            on_error(error)

    async def start(self) -> None:
        await self._lease.send_heartbeat()

    async def unlock_startup(self) -> None:
        await self._writer.do(self._writer.manifest.connection.workers.unlock_startup)

    def page_size(self, in_flight: int) -> int:
        """Return how many tasks to take per query: no more than can be started at once."""
        return min(AHEAD_OF_OTHERS, max(1, self._job.run.max_in_flight - in_flight))

    async def has_news(self) -> bool:
        if not self._lease.heard.is_set:
            return False
        self._lease.heard.clear()
        await self._import_rescued()
        return True

    async def wait_for_others(self, options: RunOptions, in_flight: Sequence[int], blocked: Collection[int]) -> bool:
        lease, control = self._lease, self._control
        # After a stop, and with --collect, tasks may still be in flight.
        self.left_behind |= await self._writer.do(self._writer.manifest.queue.release, in_flight)
        while control.may_submit() and not (options.collect or options.submit_only or options.limit is not None):
            await self._import_rescued()
            known = self.left_behind.union(blocked)
            if await self._writer.do(self._writer.manifest.queue.left_to_do, known, resend=bool(options.resend)):
                return True
            if not await self._writer.do(self._writer.manifest.queue.others_have) and not lease.left_something:
                break
            lease.heard.clear()
            await control.until(lease.heard, BEAT)
        return False

    async def _import_rescued(self) -> None:
        """Import task ids that a dead worker could not store, so that fewer tasks become uncertain."""
        lease, job, writer = self._lease, self._job, self._writer
        if not (lease.left_something or lease.still_written):
            return
        lease.left_something = False
        at_work = await writer.do(writer.manifest.workers.active)
        with orphaned_logs(job.output_dir, writer.manifest.id, at_work=at_work) as left:
            lease.still_written = left.held
            for file in left.files:
                timeout = job.run.task_timeout
                known = await writer.do(
                    writer.manifest.tasks.import_ids, file.rescued, self._clock.unix(), timeout=timeout
                )
                file.imported(known)

    async def wait_for_change(self, changed: Signal) -> bool:
        """Wait for a change here, or by another worker, which is checked at each heartbeat."""
        changed.clear()
        await self._control.until(changed, BEAT)
        return True

    async def others_may_settle(self) -> bool:
        if not await self._writer.do(self._writer.manifest.queue.others_have, settling=True):
            return False
        await self._control.rest(1.0)
        return True

    def longest_wait(self, seconds: float) -> float:
        return min(seconds, BEAT)

    def accepted(self) -> None:
        super().accepted()
        self._claims.accepted()

    def refused(self, seconds: float) -> None:
        super().refused(seconds)
        self._claims.refused(seconds)

    async def wait_for_turn(self) -> None:
        """Return at once: a shared turn is taken together with the claim."""

    async def claim(self, intent: Intent) -> tuple[Claim | None, float]:
        granted = await self._claims.claim(intent)
        self.blocked_by, self._claims.stopped_by = self._claims.stopped_by or self.blocked_by, ""
        return (None, 0.0) if granted is None else (granted[0], granted[1] - self._clock.monotonic())

    async def resend_turn(self) -> float:
        return await self._claims.turn() - self._clock.monotonic()

    def lease_covers(self, body: str) -> bool:
        return self._lease.counts_for(min(longest_submission(body), LEASE / 2))


def _claim_each(
    manifest: Manifest, budget: Budget, unix: Callable[[], float], intents: Sequence[Intent]
) -> list[Claimed]:
    return manifest.queue.claim_each(intents, budget, unix())
