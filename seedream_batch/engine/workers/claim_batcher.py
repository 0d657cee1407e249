"""Batch claims on a shared manifest: many turns, reservations and intents in one transaction."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from seedream_batch.engine.stop_control import RunStopped
from seedream_batch.manifest.async_writer import ManifestWriter
from seedream_batch.manifest.task_queue import Claim, Claimed, Intent, SharedRate
from seedream_batch.model.job import Budget
from seedream_batch.pacing import RateFeedback, reserve_slots
from seedream_batch.pacing.rate_limiter import MOST_HELD

TOGETHER = 64
"""Most intents claimed together."""

SOONEST = 0.02
"""Seconds that a claim is assumed to take at least."""

Waiting = tuple[Intent | None, "asyncio.Future[tuple[Claim | None, float] | None]"]


class ClaimBatcher:
    """Collects the intents of a run, and claims all that arrived since the last transaction, with their turns.

    A turn is the moment at which a request may be sent, in seconds of `monotonic`. Turns are taken for the whole job:
    the rate, and the pauses that the service asks for, apply to all workers together.
    """

    def __init__(
        self,
        writer: ManifestWriter,
        budget: Budget,
        rate: float | None,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        may_go_on: Callable[[], bool],
        rest: Callable[[float], Awaitable[None]],
        heard: Callable[[float], None],
    ) -> None:
        """Set up the batcher.

        `heard` receives a moment of `clock` at which the database session of a successful claim was alive.
        """
        self._writer = writer
        self._budget = budget
        self._rate = rate
        self._clock = clock
        self._monotonic = monotonic
        self._may_go_on = may_go_on
        self._rest = rest
        self._heard = heard
        self._waiting: deque[Waiting] = deque()
        self._work: asyncio.Task[None] | None = None
        self._lead = SOONEST
        self._accepted: list[float] = []
        self._refused: list[tuple[float, float]] = []
        self.stopped_by = ""
        """Which budget the last claim would have exceeded."""

    async def claim(self, intent: Intent) -> tuple[Claim, float] | None:
        """Return a committed intent and the moment of its turn; None if it was not committed, or the run is ending."""
        granted = await self._enqueue(intent)
        return None if granted is None or granted[0] is None else (granted[0], granted[1])

    async def turn(self) -> float:
        """Return the moment of a turn for a request that has an intent already. Raise `RunStopped`."""
        granted = await self._enqueue(None)
        if granted is None:
            raise RunStopped
        return granted[1]

    def accepted(self) -> None:
        """Record an accepted submission for the shared rate."""
        self._accepted.append(self._monotonic())

    def refused(self, seconds: float) -> None:
        """Pause the submissions of all workers for this many seconds."""
        self._refused.append((self._monotonic(), seconds))
        self._start()

    async def _enqueue(self, intent: Intent | None) -> tuple[Claim | None, float] | None:
        done: asyncio.Future[tuple[Claim | None, float] | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((intent, done))
        self._start()
        return await done

    def _start(self) -> None:
        if self._work is None:
            # A task of its own, so that intents which arrive in this iteration of the loop join the batch.
            self._work = asyncio.ensure_future(self._claim_batches())

    async def _claim_batches(self) -> None:
        batch: list[Waiting] = []
        try:
            while self._waiting or self._refused:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), TOGETHER))]
                if not self._may_go_on():
                    # No new intents; but requests that have one may still be resent.
                    _resolve_with_none([waiting for waiting in batch if waiting[0] is not None])
                    batch = [waiting for waiting in batch if waiting[0] is None]
                    if not batch and not self._refused:
                        continue
                left, pause = await self._claim(batch)
                self._waiting.extendleft(reversed(left))
                batch = []
                if left and pause > 0:
                    await self._rest(pause)
        except RunStopped:
            _resolve_with_none(self._waiting)
            self._waiting.clear()
        except BaseException as error:
            # If nobody waits, the next call gets the same error.
            for _, done in [*batch, *self._waiting]:
                if not done.done():
                    done.set_exception(error)
                    done.exception()  # a waiter that was cancelled must not turn this into a warning
            self._waiting.clear()
            if not isinstance(error, Exception):
                raise
        finally:
            self._work = None

    async def _claim(self, batch: list[Waiting]) -> tuple[list[Waiting], float]:
        """Claim one batch; return what got no turn, and the seconds until the next turn is free."""
        turns_only = [waiting for waiting in batch if waiting[0] is None]
        intents = {waiting[0].task: waiting for waiting in batch if waiting[0] is not None}
        accepted, self._accepted = self._accepted, []
        refused, self._refused = self._refused, []
        began = self._monotonic()

        manifest = self._writer.manifest

        def call() -> tuple[Claimed, float]:
            take = partial(self._take, accepted, refused)
            claimed = manifest.queue.claim(
                [intent for intent, _ in intents.values() if intent is not None],
                self._budget, self._clock(), take=take, also=len(turns_only), monotonic=self._monotonic,
            )  # fmt: skip
            # Taken inside the transaction: the session was alive at this moment.
            return claimed, self._clock()

        claimed, there_at = await self._writer.do(call)
        self._heard(there_at)
        # Turns must not be due before their intents are committed, or all requests would be sent at once.
        took = self._monotonic() - began
        self._lead = max(SOONEST, min(MOST_HELD, 1.25 * took if took > self._lead else 0.9 * self._lead + 0.1 * took))
        moments = [claimed.decided_at + after for after in claimed.turns]
        for (_, done), moment in zip(turns_only, moments, strict=False):
            if not done.done():
                done.set_result((None, moment))
        left = turns_only[len(moments) :]
        moments = moments[len(turns_only) :]
        tried, untried = list(intents)[: len(moments)], list(intents)[len(moments) :]
        for claim, moment in zip(claimed.claims, moments, strict=False):
            done = intents[claim.task.id][1]
            tried.remove(claim.task.id)
            if not done.done():
                done.set_result((claim, moment))
        self.stopped_by = claimed.stopped_by or self.stopped_by
        _resolve_with_none([intents[number] for number in tried])
        return [*left, *(intents[number] for number in untried)], claimed.free_in

    def _take(
        self, accepted: Sequence[float], refused: Sequence[tuple[float, float]], state: str, clock: float, most: int
    ) -> SharedRate:
        # Seconds by which the shared clock is ahead of this worker's monotonic clock.
        ahead = clock - self._monotonic()
        news = RateFeedback([at + ahead for at in accepted], [(at + ahead, pause) for at, pause in refused])
        return SharedRate(*reserve_slots(state, self._rate, clock, most, lead=self._lead, news=news))


def _resolve_with_none(waiting: list[Waiting] | deque[Waiting]) -> None:
    for _, done in waiting:
        if not done.done():
            done.set_result(None)
