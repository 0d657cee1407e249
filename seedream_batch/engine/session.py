"""Run a job from its lock to its result: open everything, work, close everything, whatever happens."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Self

from seedream_batch.client.images import ImageClient
from seedream_batch.client.secret import ApiKey
from seedream_batch.client.service import Service
from seedream_batch.engine.clock import RunClock, steady_clock
from seedream_batch.engine.context import MOST_CONNECTIONS, RunContext, RunRecord
from seedream_batch.engine.events import Event, EventKind, RunOptions, Stats, StopReason, Verified
from seedream_batch.engine.interruption import Interruption
from seedream_batch.engine.job_identity import check_known_here, check_not_moved
from seedream_batch.engine.manifest_checks import import_rescued, lock_output_folder
from seedream_batch.engine.open_files import affordable
from seedream_batch.engine.service_health import ServiceHealth
from seedream_batch.engine.startup import Source, begin
from seedream_batch.engine.stop_control import StopControl
from seedream_batch.engine.work import RunParts, Verify, Work
from seedream_batch.engine.workers.coordinator import Coordinator, SharedCoordinator
from seedream_batch.errors import Fenced, ManifestError, StorageError, UsageError
from seedream_batch.files.open_destination import destination
from seedream_batch.manifest import Manifest, ManifestReader
from seedream_batch.manifest.async_writer import ManifestWriter, repeated
from seedream_batch.manifest.maintenance_store import Unrecoverable
from seedream_batch.manifest.run_lock import run_lock
from seedream_batch.manifest.sync_job import SyncResult
from seedream_batch.model.job import MICRO, Job, Reference
from seedream_batch.model.locations import Server
from seedream_batch.model.outcome import Polled
from seedream_batch.model.task import ImageRecord, ImageState, TaskRecord, TaskState, Totals
from seedream_batch.pacing import AdaptiveRateLimiter, PollSchedule

WARNINGS = 20
"""Most results listed, with the reason, as not what was requested; the count includes all."""


@dataclass(frozen=True, slots=True)
class NotThere:
    """The images of the job that a verification left missing."""

    count: int
    images: list[tuple[ImageRecord, TaskRecord]]
    """The images with their tasks: all, or the first ones, as requested."""
    waiting: int
    """Images with a link, to be downloaded."""
    lost: Unrecoverable
    """Images without a usable link."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """The result of a run; times in seconds, money in millionths of a USD."""

    stats: Stats
    entered: SyncResult
    tasks: Mapping[TaskState, int]
    images: Mapping[ImageState, int]
    totals: Totals
    seconds: float
    calls: int
    stop_reason: StopReason | None
    stop_text: str
    signal: int | None
    verified: Verified
    not_there: NotThere | None
    """None for a run that did not verify."""
    flagged: int
    """Tasks of the job whose result is not what was requested, and that nobody accepted."""
    warnings: list[str]
    """The reasons: the first `WARNINGS` of them."""
    rechecks: Mapping[int, Polled]
    """What the last poll of each lost or flagged task showed, by task number."""

    @property
    def cost_usd(self) -> float:
        """What this run cost in USD, as far as the service has reported."""
        return self.stats.cost / MICRO

    @property
    def total_cost_usd(self) -> float:
        """What all runs of the job cost so far, in USD."""
        return self.totals.cost / MICRO

    @property
    def left(self) -> int:
        """Tasks and images on which a further run would do something."""
        open_states = (TaskState.PLANNED, TaskState.SUBMITTING, TaskState.ACCEPTED)
        return sum(self.tasks.get(state, 0) for state in open_states) + self.images.get(ImageState.ANNOUNCED, 0)


@dataclass(kw_only=True)
class RunSession:
    """One run of a job, from its lock to its result; a context manager, used once.

    The tasks of `source` are synced to the manifest in one transaction; `references` holds the local images they use
    once all tasks were read. With a manifest on a server the run is a worker, and there may be others. `service` yields
    the origin of the service; it is entered after the lock is taken, and left before it is released.

    `emit` receives every event; `started` is called once with the live counters, the images the job asks for and those
    already stored. Neither may raise. `interruption` ends the run from outside, and with `signals` so do Ctrl-C,
    SIGTERM and SIGHUP, which needs the main thread. Entering it raises `ManifestLocked`, `InvalidJob`, `StorageError`
    or `UsageError`.
    """

    job: Job
    source: Source
    references: Mapping[str, Reference]
    service: AbstractContextManager[str]
    key: ApiKey
    options: RunOptions
    work: Work
    emit: Callable[[Event], None]
    started: Callable[[Stats, int, int], None]
    interruption: Interruption
    signals: bool
    random: Random = field(default_factory=Random)
    stats: Stats = field(default_factory=Stats, init=False)
    _context: RunContext | None = field(default=None, init=False)
    _calls: int = field(default=0, init=False)
    _signal: int | None = field(default=None, init=False)
    _stopped_at_once: bool = field(default=False, init=False)
    _interrupted: bool = field(default=False, init=False)
    _working: asyncio.Task[None] | None = field(default=None, init=False)
    _to_close: ExitStack = field(default_factory=ExitStack, init=False)

    def __enter__(self) -> Self:
        """Lock the folder, open the manifest, and begin the run on it."""
        job = self.job
        check_known_here(job)
        self._folder = destination(job)
        self._folder.prepare()
        self._schedule = PollSchedule(self.random, monotonic=time.monotonic)
        with self._to_close as stack:
            on_server = isinstance(job.manifest, Server)
            stack.enter_context(run_lock(job.output_dir, shared=on_server))
            self._origin = stack.enter_context(self.service)
            self._began = time.monotonic()
            # The folder's own lock is released after the manifest is closed.
            folder_lock = stack.enter_context(ExitStack())
            self._manifest = Manifest(job.manifest, shared=on_server and not self.work.verifies)
            stack.callback(self._close_manifest)
            lock_output_folder(folder_lock, self._manifest, job)
            self._start = begin(
                self._manifest, job, self.source, self._origin,
                lambda text: self.emit(Event(EventKind.WARNING, text)),
                key=self.key if self.work.asks else None, confirmed=self.options.same_account,
                verifies=self.work.verifies,
            )  # fmt: skip
            stack.callback(self._start.rescue.close)
            if self.options.chooses is not None:
                chooses = self.options.chooses
                repeated(lambda: self._manifest.queue.select(chooses))
            self._to_close = stack.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        """Close everything; a run that has no recorded end is marked as a fault, unless it stopped at once."""
        self._to_close.close()

    def _close_manifest(self) -> None:
        if not self._stopped_at_once:
            with suppress(StorageError, ManifestError):
                repeated(lambda: self._manifest.workers.leave(now=time.time(), outcome="fault"))
        self._manifest.close()

    def run(self) -> RunResult:
        """Work until nothing is left to do or something stops the run; record its end."""
        with ManifestReader(self._manifest.place) as reader:
            stored, wanted = reader.image_counts().get(ImageState.STORED, 0), reader.wanted()[1]
        self.started(self.stats, wanted, stored)
        failure, interrupted = self._run_to_end()
        return self._conclude(failure, interrupted)

    @property
    def _outcome(self) -> str:
        """Why the run ended, as recorded in the manifest."""
        stopped = self._context.control.reason if self._context else None
        return str(stopped) if stopped else "finished"

    def _run_to_end(self) -> tuple[StorageError | None, KeyboardInterrupt | None]:
        """Run to the end; return a storage failure or a Ctrl-C, which end the run in good order.

        Where the run handles no signals, asyncio turns a Ctrl-C into a cancellation. Raise `Fenced` after the lease
        expired.
        """
        try:
            asyncio.run(self._run())
        except StorageError as error:
            return error, None
        except KeyboardInterrupt as error:
            return None, error
        except Fenced:
            self._detach()
            raise
        return None, None

    def _detach(self) -> None:
        """Detach from the workers; import task ids that arrived after the lease expired."""
        self._manifest.workers.detach()
        self._start.rescue.close()
        # They are matched by their key. If that fails, the next run imports them.
        with suppress(StorageError, ManifestError, UsageError):
            check_not_moved(self._manifest)
            import_rescued(self._manifest, self.job, time.time())

    def _conclude(self, failure: StorageError | None, interrupted: KeyboardInterrupt | None) -> RunResult:
        """Record the end of the run; return its result, or raise what ended it.

        Raise `StorageError` if the manifest cannot be written.
        """
        manifest = self._manifest
        self._start.rescue.close()
        try:
            if (
                (self._start.rescue.used or manifest.connection.shared)
                and failure is None
                and not self._stopped_at_once
            ):
                # The manifest may only have been slow, or another worker may have lost its connection.
                self._import_rescued()
            if not self._stopped_at_once:
                self._record_end(failed=failure is not None)
            if interrupted is not None:
                raise interrupted
            return self._result(time.monotonic() - self._began)
        except StorageError:
            # The first failure says more than the failure to record the end.
            raise failure or StorageError(f"{manifest.name} cannot be written") from None

    def _import_rescued(self) -> None:
        try:
            import_rescued(self._manifest, self.job, time.time())
        except StorageError as error:
            text = f"the next run may find task ids in {self.job.output_dir}: {error}"
            self.emit(Event(EventKind.WARNING, text))

    def _record_end(self, *, failed: bool) -> None:
        """Record the durations of tasks for the next run, then the end of this one."""
        manifest = self._manifest
        task_times = self._schedule.learnt()
        if task_times and not failed:
            # Not after a failure: a full disk may just have room for the end of the run.
            repeated(lambda: manifest.facts.set_task_times(task_times))
        repeated(lambda: manifest.workers.end_run(now=time.time(), outcome=self._outcome))

    def _result(self, seconds: float) -> RunResult:
        context, manifest, work = self._context, self._manifest, self.work
        with ManifestReader(manifest.place) as reader:
            return RunResult(
                stats=self.stats,
                entered=self._start.entered,
                tasks=reader.counts(),
                images=reader.image_counts(),
                totals=reader.totals(),
                seconds=seconds,
                calls=self._calls,
                stop_reason=context.control.reason if context else None,
                stop_text=context.control.text if context else "",
                signal=self._signal,
                verified=context.record.verified if context else Verified(),
                not_there=NotThere(
                    *manifest.upkeep.not_stored(work.named), manifest.upkeep.waiting(), manifest.upkeep.unrecoverable()
                )
                if isinstance(work, Verify)
                else None,
                flagged=reader.flagged_tasks(),
                rechecks=context.record.rechecks if context else {},
                warnings=[text for task in reader.flagged(WARNINGS) for text in task.warnings][:WARNINGS],
            )

    async def _run(self) -> None:
        job = self.job
        connections = affordable(min(max(16, job.run.max_in_flight), MOST_CONNECTIONS))
        # Handle signals until the very end: Python's own handling of Ctrl-C would interrupt a write in progress.
        with self._signals():
            writer = ManifestWriter(self._manifest, lost=self._on_connection_lost)
            try:
                await self._run_with(writer, job, connections)
            finally:
                await writer.close()

    async def _run_with(self, writer: ManifestWriter, job: Job, connections: int) -> None:
        async with (
            Service(self._origin, self.key, connections=connections) as service,
            ImageClient(self._origin) as images,
        ):
            self._load_durations()
            control = StopControl(self.emit, service.give_up_connecting)
            clock = RunClock(steady_clock(), time.monotonic)
            health = ServiceHealth(service, control, AdaptiveRateLimiter(job.run.rate), clock.monotonic)
            kind = SharedCoordinator if self._manifest.connection.shared else Coordinator
            context = self._context = RunContext(
                job=job,
                options=self.options,
                start=self._start,
                writer=writer,
                service=service,
                folder=self._folder,
                references=self.references,
                schedule=self._schedule,
                clock=clock,
                random=self.random,
                control=control,
                health=health,
                coordinator=kind(writer, job, clock, control, health.limiter),
                record=RunRecord(self.stats),
            )
            if self._interrupted:
                context.control.end(StopReason.INTERRUPTED, "interrupted during start-up")
            try:
                await self._work_to_end(context, images)
            finally:
                self._calls = service.calls + images.calls

    def _load_durations(self) -> None:
        """Load the task durations measured by earlier runs."""
        with ManifestReader(self._manifest.place) as reader:
            for resolution, seconds in reader.facts.task_times().items():
                self._schedule.learn(resolution, seconds)

    async def _work_to_end(self, context: RunContext, images: ImageClient) -> None:
        """Work to the end. A cancellation ends the run like Ctrl-C, so that no paid result is dropped."""
        work = self._working = asyncio.ensure_future(RunParts(context, images).run(self.work))
        loop = asyncio.get_running_loop()

        def asked(at_once: bool) -> None:  # noqa: FBT001 - called by the interruption
            loop.call_soon_threadsafe(self._on_interruption, context, at_once)

        cancelled: asyncio.CancelledError | None = None
        with self.interruption.heard(asked), _time_limit(context):
            while not work.done():
                try:
                    await asyncio.wait({work})
                except asyncio.CancelledError as error:
                    cancelled = error
                    self._interrupt("cancellation", None)
        if work.cancelled():
            self._stopped_at_once = True
        else:
            work.result()
        if cancelled is not None:
            raise cancelled

    def _interrupt(self, why: str, number: int | None) -> None:
        """Finish what is being sent or written; stop at once when called a second time."""
        if self._interrupted:
            self._stop_at_once()
        else:
            self._interrupted = True
            self._signal = number
            if self._context is not None:
                more = "finishing current requests; interrupt again to quit now"
                self._context.control.end(StopReason.INTERRUPTED, f"interrupted ({why})", more=more)

    def _on_interruption(self, context: RunContext, at_once: bool) -> None:  # noqa: FBT001 - called by the loop
        """Handle an interruption; stop at once only if `at_once` is set, however often it is called."""
        if not self._interrupted:
            self._interrupted = True
            context.control.end(StopReason.INTERRUPTED, "stop requested")
        if at_once:
            self._stop_at_once()

    def _on_connection_lost(self, text: str) -> None:
        if self._context is not None:
            self._context.control.warn(f"{text}; waiting for it before submitting more")

    def _stop_at_once(self) -> None:
        """Cancel everything at once; the next run recovers."""
        self._manifest.connection.abort_retries()
        if self._working is not None:
            self._stopped_at_once = True
            self._working.cancel()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Handle Ctrl-C, SIGTERM and SIGHUP as interruptions, if the run may handle signals."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if self.signals else ()
        for number in numbers:
            loop.add_signal_handler(number, self._interrupt, number.name, number)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


@contextmanager
def _time_limit(context: RunContext) -> Iterator[None]:
    seconds = context.options.max_duration
    if seconds is None:
        yield
        return
    text = f"time limit of {seconds:,g} s reached"
    handle = asyncio.get_running_loop().call_later(seconds, context.control.end, StopReason.TIME, text)
    try:
        yield
    finally:
        handle.cancel()
