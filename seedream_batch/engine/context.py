"""Hold what the parts of one run share: settings, dependencies, counters, and how the run stops."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from seedream_batch.client.images import ImageClient
from seedream_batch.client.service import Service
from seedream_batch.engine.events import Event, EventKind, RunOptions, Stats, StopReason, Verified
from seedream_batch.engine.key_check import KeyCheck
from seedream_batch.engine.stop_control import Signal, StopControl
from seedream_batch.engine.workers.claim_batcher import ClaimBatcher
from seedream_batch.engine.workers.heartbeat import WorkerLease
from seedream_batch.files.destination import Destination
from seedream_batch.manifest.async_writer import ManifestWriter
from seedream_batch.manifest.rescue_log import RescueFile
from seedream_batch.model.job import MICRO, Job, Reference
from seedream_batch.model.outcome import Polled
from seedream_batch.model.task import TaskRecord
from seedream_batch.pacing import AdaptiveRateLimiter, PollSchedule

T = TypeVar("T")

OUTAGE_LIMIT = 120.0
"""Seconds without a usable answer from the service after which the run ends; the next run continues."""

DEAD_END_LIMIT = 3.0
"""Seconds after which a run ends that never got an answer, if waiting cannot help (wrong host, bad certificate)."""

LIMITED_LIMIT = 1800.0
"""Seconds with nothing but "too many requests" answers after which the run ends."""

LONG_PAUSE = 30.0
"""Seconds of requested pauses after which a warning is shown; it is repeated after ten times as long."""

MOST_CONNECTIONS = 256
"""Most connections to the service. More tasks may be in flight, since each of them polls only now and then."""

MOST_UNCLEAR = 5
"""Tasks in a row without a clear answer after which submissions stop: each of them may have cost money."""


@dataclass(slots=True)
class RunContext:
    """The dependencies and the shared state of one run."""

    job: Job
    options: RunOptions
    writer: ManifestWriter
    service: Service
    images: ImageClient
    folder: Destination
    references: Mapping[str, Reference]
    schedule: PollSchedule
    pace: AdaptiveRateLimiter
    clock: Callable[[], float]
    monotonic: Callable[[], float]
    random: Random
    emit: Callable[[Event], None]
    rescue: RescueFile
    key: KeyCheck
    cut_off: bool
    """Whether the previous run was killed."""
    alone: bool = True
    """Whether no other worker was active when this run started; it then cleans up and moves files."""
    other_folders: bool = False
    """Whether images may be in the output folder of another machine."""
    worker: WorkerLease | None = None
    """The lease of this worker; None for a run that owns its manifest alone."""
    claims: ClaimBatcher | None = None
    """The batcher of claims on a shared manifest; None for a run that owns its manifest alone."""
    stats: Stats = field(default_factory=Stats)
    stop_reason: StopReason | None = None
    stop_text: str = ""
    waits: StopControl = field(default_factory=StopControl)
    silent_since: float | None = None
    limited_since: float | None = None
    tell_pause_at: float = 0.0
    unclear: int = 0
    denied: int = 0
    verified: Verified = field(default_factory=Verified)
    rechecks: dict[int, Polled] = field(default_factory=dict)
    """The result of the last poll of each lost or flagged task, by task number."""
    may_poll: bool = True
    """False once the key is refused. Images need no key, so they are still downloaded."""

    def may_submit(self) -> bool:
        """Return whether nothing has stopped submissions yet."""
        return self.stop_reason is None

    def stop_submitting(self, reason: StopReason, text: str, *, more: str = "") -> None:
        """Stop submitting; polling and downloads continue.

        Only the first reason is kept. `more` is added to the message, and not kept.
        """
        if self.stop_reason is None:
            self.stop_reason = reason
            self.stop_text = text
            self.emit(Event(EventKind.STOPPING, f"{text}; {more}" if more else text, {"reason": str(reason)}))

    def end(self, reason: StopReason, text: str, *, more: str = "") -> None:
        """Start nothing new: waits are cancelled, requests and writes in progress finish."""
        if not self.waits.over:
            # Why the run ends (Ctrl-C, a time limit, a full disk) matters more than why it stopped submitting earlier.
            self.stop_reason = None
            self.stop_submitting(reason, text, more=more)
            self.waits.end()
            self.service.give_up_connecting()

    def tell(self, text: str) -> None:
        """Emit a warning."""
        self.emit(Event(EventKind.WARNING, text))

    def slow_down(self, seconds: float, reason: str) -> None:
        """Pause all submissions as the service asks; end the run after `LIMITED_LIMIT` seconds of such answers."""
        now = self.monotonic()
        self.silent_since = None
        if self.limited_since is None:
            self.limited_since = now
        if now - self.limited_since > LIMITED_LIMIT:
            self.end(StopReason.OUTAGE, f"nothing but requests to wait for {LIMITED_LIMIT / 60:.0f} minutes ({reason})")
        self.send_none_for(seconds)
        if now >= self.tell_pause_at and max(seconds, now - self.limited_since) >= LONG_PAUSE:
            self.tell_pause_at = now + 10 * LONG_PAUSE
            since = f", for {now - self.limited_since:.0f} s by now" if now > self.limited_since else ""
            self.tell(f"the service asks to send less{since}: the next pause is {seconds:.0f} s ({reason})")
        text = f"the service asks for a pause of {seconds:.1f} s ({reason})"
        self.emit(Event(EventKind.SLOWED, text, {"seconds": seconds}))

    def send_none_for(self, seconds: float) -> None:
        """Submit nothing for this many seconds, and more slowly afterwards; applies to all workers."""
        self.pace.refused(self.monotonic(), seconds)
        if self.claims is not None:
            self.claims.refused(seconds)

    def sent_one(self) -> None:
        """Record an accepted submission for the rate limiter."""
        self.pace.accepted(self.monotonic())
        if self.claims is not None:
            self.claims.accepted()

    async def free(self, work: Coroutine[object, object, T]) -> T:
        """Return the result of work that is free to repeat; cancel it and raise `RunStopped` when the run ends."""
        return await self.waits.free(work)

    def check(self) -> None:
        """Raise `RunStopped` if the run is ending."""
        self.waits.check()

    async def rest(self, seconds: float) -> None:
        """Sleep this many seconds; raise `RunStopped` as soon as the run ends."""
        await self.waits.until(None, seconds)

    async def rest_unless(self, seconds: float, event_: Signal) -> None:
        """Sleep this many seconds or until the event is set; raise `RunStopped` as soon as the run ends."""
        await self.waits.until(event_, seconds)

    async def until(self, happening: Signal) -> None:
        """Wait until the event is set; raise `RunStopped` as soon as the run ends."""
        await self.waits.until(happening)

    def heard_from_service(self) -> None:
        """Record a usable answer of the service."""
        self.silent_since = None
        self.limited_since = None
        self.denied = 0

    def not_heard(self, why: str) -> None:
        """Record an exchange without a usable answer.

        Ends the run after `OUTAGE_LIMIT` seconds without one, or after `DEAD_END_LIMIT` seconds if waiting cannot help.
        """
        now = self.monotonic()
        if self.silent_since is None:
            self.silent_since = now
        if self.service.dead_end and now - self.silent_since > DEAD_END_LIMIT:
            self.end(StopReason.OUTAGE, f"{self.service.origin} cannot be used from here: {why}")
        elif now - self.silent_since > OUTAGE_LIMIT:
            self.end(StopReason.OUTAGE, f"no usable answer from {self.service.origin} for {OUTAGE_LIMIT:.0f} s: {why}")


def dollars(micro: int) -> str:
    """Return an amount in millionths of a USD as text for a message."""
    return f"{micro / MICRO:.2f} USD"


def name(task: TaskRecord) -> str:
    """Return the name of a task for messages: its path in the output folder."""
    return task.paths[0]


def event(kind: EventKind, task: TaskRecord, text: str, **fields: object) -> Event:
    """Return an event about one task."""
    return Event(kind, f"{name(task)}: {text}", fields, task)
