"""Hold what the parts of one run share: settings, dependencies, counters, and how the run stops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random

from seedream_batch.client.service import Service
from seedream_batch.engine.events import Event, EventKind, RunOptions, Stats, Verified
from seedream_batch.engine.service_health import ServiceHealth
from seedream_batch.engine.startup import RunStart
from seedream_batch.engine.stop_control import StopControl
from seedream_batch.engine.workers.claim_batcher import ClaimBatcher
from seedream_batch.engine.workers.heartbeat import WorkerLease
from seedream_batch.files.destination import Destination
from seedream_batch.manifest.async_writer import ManifestWriter
from seedream_batch.model.job import MICRO, Job, Reference
from seedream_batch.model.outcome import Polled
from seedream_batch.model.task import TaskRecord
from seedream_batch.pacing import PollSchedule

MOST_CONNECTIONS = 256
"""Most connections to the service. More tasks may be in flight, since each of them polls only now and then."""

MOST_UNCLEAR = 5
"""Tasks in a row without a clear answer after which submissions stop: each of them may have cost money."""


@dataclass(frozen=True, slots=True)
class RunClock:
    """The clocks of a run: `unix` advances evenly, also while the machine sleeps; `monotonic` may stop then."""

    unix: Callable[[], float]
    monotonic: Callable[[], float]


@dataclass(slots=True)
class RunRecord:
    """What a run counted and found out."""

    stats: Stats
    verified: Verified = field(default_factory=Verified)
    rechecks: dict[int, Polled] = field(default_factory=dict)
    """The result of the last poll of each lost or flagged task, by task number."""


@dataclass(slots=True)
class Coordination:
    """How a run shares its manifest; both are None for a run that owns it alone."""

    lease: WorkerLease | None = None
    claims: ClaimBatcher | None = None


@dataclass(frozen=True, slots=True)
class RunContext:
    """The dependencies of one run, and the objects that hold its state."""

    job: Job
    options: RunOptions
    start: RunStart
    writer: ManifestWriter
    service: Service
    folder: Destination
    references: Mapping[str, Reference]
    schedule: PollSchedule
    clock: RunClock
    random: Random
    control: StopControl
    health: ServiceHealth
    coordination: Coordination
    record: RunRecord

    def pause_submissions(self, seconds: float) -> None:
        """Submit nothing for this many seconds, and more slowly afterwards; applies to all workers."""
        self.health.limiter.refused(self.clock.monotonic(), seconds)
        if self.coordination.claims is not None:
            self.coordination.claims.refused(seconds)

    def submission_accepted(self) -> None:
        """Record an accepted submission for the rate limiter."""
        self.health.limiter.accepted(self.clock.monotonic())
        if self.coordination.claims is not None:
            self.coordination.claims.accepted()


def dollars(micro: int) -> str:
    """Return an amount in millionths of a USD as text for a message."""
    return f"{micro / MICRO:.2f} USD"


def name(task: TaskRecord) -> str:
    """Return the name of a task for messages: its path in the output folder."""
    return task.paths[0]


def event(kind: EventKind, task: TaskRecord, text: str, **fields: object) -> Event:
    """Return an event about one task."""
    return Event(kind, f"{name(task)}: {text}", fields, task)
