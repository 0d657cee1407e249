"""Hold what the parts of one run share: settings, dependencies, counters, and how the run stops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from seedream_batch.client.service import Service
from seedream_batch.engine.clock import RunClock
from seedream_batch.engine.events import Event, EventKind, RunOptions, Stats, Verified
from seedream_batch.engine.service_health import ServiceHealth
from seedream_batch.engine.startup import RunStart
from seedream_batch.engine.stop_control import StopControl
from seedream_batch.engine.workers.coordinator import Coordinator
from seedream_batch.files.destination import Destination
from seedream_batch.manifest import Manifest
from seedream_batch.manifest.async_writer import ManifestWriter
from seedream_batch.model.job import MICRO, Job, Reference
from seedream_batch.model.outcome import Polled
from seedream_batch.model.task import TaskRecord
from seedream_batch.pacing import PollSchedule

MOST_CONNECTIONS = 256
"""Most connections to the service. More tasks may be in flight, since each of them polls only now and then."""

MOST_UNCLEAR = 5
"""Tasks in a row without a clear answer after which submissions stop: each of them may have cost money."""


@dataclass(slots=True)
class RunRecord:
    """What a run counted and found out."""

    stats: Stats
    verified: Verified = field(default_factory=Verified)
    rechecks: dict[int, Polled] = field(default_factory=dict)
    """The result of the last poll of each lost or flagged task, by task number."""


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
    coordinator: Coordinator
    record: RunRecord

    @property
    def manifest(self) -> Manifest:
        """The manifest; its parts are called through the writer."""
        return self.writer.manifest


def dollars(micro: int) -> str:
    """Return an amount in millionths of a USD as text for a message."""
    return f"{micro / MICRO:.2f} USD"


def name(task: TaskRecord) -> str:
    """Return the name of a task for messages: its path in the output folder."""
    return task.paths[0]


def event(kind: EventKind, task: TaskRecord, text: str, **fields: object) -> Event:
    """Return an event about one task."""
    return Event(kind, f"{name(task)}: {text}", fields, task)


def flag(context: RunContext, task: TaskRecord, warning: str) -> None:
    """Report a result that is not what was requested."""
    context.record.stats.flagged += 1
    context.control.emit(event(EventKind.FLAGGED, task, warning))
