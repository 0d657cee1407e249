"""What all parts of a run share: its settings, its edges, its counters, and how it stops."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from seedream_batch.client.images import ImageClient
from seedream_batch.client.service import Service
from seedream_batch.engine.events import Event, EventKind, RunOptions, Stats, StopReason, Verified
from seedream_batch.engine.key_check import KeyCheck
from seedream_batch.engine.stop_control import Happening, Waits
from seedream_batch.engine.workers.claim_batcher import Claims
from seedream_batch.engine.workers.heartbeat import Membership
from seedream_batch.files.destination import Destination
from seedream_batch.manifest.async_writer import ManifestWriter
from seedream_batch.manifest.rescue_log import RescueFile
from seedream_batch.model.job import MICRO, Job, Reference
from seedream_batch.model.outcome import Polled
from seedream_batch.model.task import TaskRecord
from seedream_batch.pacing import PollSchedule, SubmissionPace

T = TypeVar("T")

OUTAGE_LIMIT = 120.0
"""Seconds without any usable answer from the service after which a run gives up; the next one goes on."""

DEAD_END_LIMIT = 3.0
"""Seconds after which a run gives up that has had no answer yet, for a reason that does not get better by itself."""

LIMITED_LIMIT = 1800.0
"""Seconds with no other answer than "too many requests" after which a run gives up."""

LONG_PAUSE = 30.0
"""Seconds of asking to wait after which people are told, and again after ten times as long."""

MOST_CONNECTIONS = 256
"""Connections to the service. More tasks may be in flight, each of which asks now and then."""

MOST_UNCLEAR = 5
"""Tasks in a row without a clear answer after which a run stops submitting: each one may have cost money."""


@dataclass(slots=True)
class Context:
    """The parts of one run."""

    job: Job
    options: RunOptions
    writer: ManifestWriter
    service: Service
    images: ImageClient
    folder: Destination
    references: Mapping[str, Reference]
    schedule: PollSchedule
    pace: SubmissionPace
    clock: Callable[[], float]
    monotonic: Callable[[], float]
    random: Random
    emit: Callable[[Event], None]
    rescue: RescueFile
    key: KeyCheck
    cut_off: bool
    """Whether a run before this one was killed."""
    alone: bool = True
    """Whether nobody else was at work when this run began: then it tidies up, and moves files."""
    other_folders: bool = False
    """Whether images may be in the output folder of another machine."""
    crew: Membership | None = None
    """The place of this run among the workers of its manifest, if there may be others."""
    claims: Claims | None = None
    """How it claims tasks then."""
    stats: Stats = field(default_factory=Stats)
    stop_reason: StopReason | None = None
    stop_text: str = ""
    waits: Waits = field(default_factory=Waits)
    silent_since: float | None = None
    limited_since: float | None = None
    tell_pause_at: float = 0.0
    unclear: int = 0
    denied: int = 0
    verified: Verified = field(default_factory=Verified)
    rechecks: dict[int, Polled] = field(default_factory=dict)
    """What the last poll of each lost or flagged task showed, by its number."""
    may_poll: bool = True
    """False once the key is refused: images need no key, so they are still fetched."""

    def may_submit(self) -> bool:
        """Whether nothing has stopped submissions yet."""
        return self.stop_reason is None

    def stop_submitting(self, reason: StopReason, text: str, *, more: str = "") -> None:
        """No more submissions; polling and fetching go on. The first reason stays; `more` is told now, and not kept."""
        if self.stop_reason is None:
            self.stop_reason = reason
            self.stop_text = text
            self.emit(Event(EventKind.STOPPING, f"{text}; {more}" if more else text, {"reason": str(reason)}))

    def end(self, reason: StopReason, text: str, *, more: str = "") -> None:
        """Nothing new at all: what waits gives up, what is being sent or written finishes."""
        if not self.waits.over:
            # Ctrl-C, a time limit or a full disk says more of how the run ended than why it stopped submitting before.
            self.stop_reason = None
            self.stop_submitting(reason, text, more=more)
            self.waits.end()
            self.service.give_up_connecting()

    def tell(self, text: str) -> None:
        """A line for people."""
        self.emit(Event(EventKind.WARNING, text))

    def slow_down(self, seconds: float, told: str) -> None:
        """The service asked for a pause: everything waits. Too long with nothing but such answers ends the run."""
        now = self.monotonic()
        self.silent_since = None
        if self.limited_since is None:
            self.limited_since = now
        if now - self.limited_since > LIMITED_LIMIT:
            self.end(StopReason.OUTAGE, f"nothing but requests to wait for {LIMITED_LIMIT / 60:.0f} minutes ({told})")
        self.send_none_for(seconds)
        if now >= self.tell_pause_at and max(seconds, now - self.limited_since) >= LONG_PAUSE:
            self.tell_pause_at = now + 10 * LONG_PAUSE
            since = f", for {now - self.limited_since:.0f} s by now" if now > self.limited_since else ""
            self.tell(f"the service asks to send less{since}: the next pause is {seconds:.0f} s ({told})")
        text = f"the service asks for a pause of {seconds:.1f} s ({told})"
        self.emit(Event(EventKind.SLOWED, text, {"seconds": seconds}))

    def send_none_for(self, seconds: float) -> None:
        """Nothing is submitted for so long, and more slowly afterwards: by all workers, if there are any."""
        self.pace.refused(self.monotonic(), seconds)
        if self.claims is not None:
            self.claims.refused(seconds)

    def sent_one(self) -> None:
        """The service took a submission: the pace goes by that."""
        self.pace.accepted(self.monotonic())
        if self.claims is not None:
            self.claims.accepted()

    async def free(self, work: Coroutine[object, object, T]) -> T:
        """What work gives that is free to repeat; cancels it and raises `Stopping` as soon as the run is to end."""
        return await self.waits.free(work)

    def check(self) -> None:
        """Raises `Stopping` when the run is to end."""
        self.waits.check()

    async def rest(self, seconds: float) -> None:
        """Waits; raises `Stopping` as soon as the run is to end."""
        await self.waits.until(None, seconds)

    async def rest_unless(self, seconds: float, happening: Happening) -> None:
        """Waits so long, or until something happens; raises `Stopping` as soon as the run is to end."""
        await self.waits.until(happening, seconds)

    async def until(self, happening: Happening) -> None:
        """Waits for something, or raises `Stopping` as soon as the run is to end."""
        await self.waits.until(happening)

    def heard_from_service(self) -> None:
        """A usable answer came."""
        self.silent_since = None
        self.limited_since = None
        self.denied = 0

    def not_heard(self, why: str) -> None:
        """An exchange got no usable answer; too long without one ends the run, sooner where waiting does not help."""
        now = self.monotonic()
        if self.silent_since is None:
            self.silent_since = now
        if self.service.dead_end and now - self.silent_since > DEAD_END_LIMIT:
            self.end(StopReason.OUTAGE, f"{self.service.origin} cannot be used from here: {why}")
        elif now - self.silent_since > OUTAGE_LIMIT:
            self.end(StopReason.OUTAGE, f"no usable answer from {self.service.origin} for {OUTAGE_LIMIT:.0f} s: {why}")


def dollars(micro: int) -> str:
    """Money for a line of a log."""
    return f"{micro / MICRO:.2f} USD"


def name(task: TaskRecord) -> str:
    """A task for people: the path it will have in the output folder."""
    return task.paths[0]


def event(kind: EventKind, task: TaskRecord, text: str, **fields: object) -> Event:
    """An event of one task."""
    return Event(kind, f"{name(task)}: {text}", fields, task)
