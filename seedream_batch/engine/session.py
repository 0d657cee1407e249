"""Run a job from its lock to its result: open everything, work, close everything, whatever happens."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from random import Random

from seedream_batch.client.images import ImageClient
from seedream_batch.client.secret import ApiKey
from seedream_batch.client.service import Service
from seedream_batch.engine.context import MOST_CONNECTIONS, Coordination, RunClock, RunContext, RunRecord
from seedream_batch.engine.events import Event, EventKind, RunOptions, Stats, StopReason, Verified
from seedream_batch.engine.interruption import Interruption
from seedream_batch.engine.job_identity import check_known_here, check_not_moved
from seedream_batch.engine.manifest_checks import import_rescued, lock_output_folder
from seedream_batch.engine.open_files import affordable
from seedream_batch.engine.scheduler import Scheduler
from seedream_batch.engine.service_health import ServiceHealth
from seedream_batch.engine.startup import RunStart, Source, begin
from seedream_batch.engine.stop_control import StopControl
from seedream_batch.engine.workers.claim_batcher import ClaimBatcher
from seedream_batch.engine.workers.heartbeat import WorkerLease
from seedream_batch.errors import Fenced, ManifestError, StorageError, UsageError
from seedream_batch.files.destination import Destination
from seedream_batch.files.open import destination
from seedream_batch.manifest import Manifest, ManifestReader
from seedream_batch.manifest.async_writer import ManifestWriter, repeated
from seedream_batch.manifest.maintenance_store import Lost
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
    lost: Lost
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


def run_job(
    job: Job,
    *,
    source: Source,
    references: Mapping[str, Reference],
    service: AbstractContextManager[str],
    key: ApiKey,
    options: RunOptions,
    emit: Callable[[Event], None],
    started: Callable[[Stats, int, int], None],
    interruption: Interruption,
    signals: bool,
    random: Random | None = None,
) -> RunResult:
    """Run a job until nothing is left to do or something stops it.

    The tasks of `source` are synced to the manifest in one transaction; `references` holds the local images they use
    once all tasks were read. With a manifest on a server the run is a worker, and there may be others. `service` yields
    the origin of the service; it is entered after the lock is taken, and left before it is released.

    `emit` receives every event; `started` is called once with the live counters, the images the job asks for and those
    already stored. Neither may raise. `interruption` ends the run from outside, and with `signals` so do Ctrl-C,
    SIGTERM and SIGHUP, which needs the main thread. Raise `ManifestLocked`, `InvalidJob`, `StorageError` or
    `UsageError`.
    """
    check_known_here(job)
    folder = destination(job)
    folder.prepare()
    on_server = isinstance(job.manifest, Server)
    with run_lock(job.output_dir, shared=on_server), service as origin, ExitStack() as stack:
        began = time.monotonic()
        # A verification does not share the manifest: no worker may change what it checks.
        manifest = Manifest(job.manifest, shared=on_server and options.verify is None)
        runner = _Runner(
            job, references, manifest, folder, origin, key, options, emit, random or Random(), interruption, signals
        )
        try:
            lock_output_folder(stack, manifest, job)
            runner.begin(source)
            stored, wanted = _progress(manifest)
            started(runner.stats, wanted, stored)
            failure, interrupted = runner.work()
            return runner.conclude(failure, interrupted, began)
        finally:
            runner.close()


class _Runner:
    """One run on an open manifest."""

    def __init__(
        self,
        job: Job,
        references: Mapping[str, Reference],
        manifest: Manifest,
        folder: Destination,
        origin: str,
        key: ApiKey,
        options: RunOptions,
        emit: Callable[[Event], None],
        random: Random,
        interruption: Interruption,
        signals: bool,  # noqa: FBT001
    ) -> None:
        self._job = job
        self._references = references
        self._begun: RunStart
        self._manifest = manifest
        self._folder = folder
        self._origin = origin
        self._key = key
        self.options = options
        self._emit = emit
        self._random = random
        self._interruption = interruption
        self._handles_signals = signals
        self.stats = Stats()
        self.schedule = PollSchedule(random, monotonic=time.monotonic)
        self.calls = 0
        self.context: RunContext | None = None
        self.signal: int | None = None
        self.left_at_once = False
        self._interrupted = False
        self._work: asyncio.Task[None] | None = None
        self._to_close = ExitStack()

    @property
    def outcome(self) -> str:
        """Why the run ended, as recorded in the manifest."""
        stopped = self.context.control.reason if self.context else None
        return str(stopped) if stopped else "finished"

    def begin(self, source: Source) -> None:
        """Begin the run on the manifest and select its tasks; raise what `begin` does."""
        manifest, options = self._manifest, self.options
        self._begun = begin(
            manifest, self._job, source, self._origin, lambda text: self._emit(Event(EventKind.WARNING, text)),
            key=None if options.verify is not None and not options.verify.ask else self._key,
            confirmed=options.same_account, verifies=options.verify is not None,
        )  # fmt: skip
        self._to_close.callback(self._begun.rescue.close)
        if options.chooses is not None:
            chooses = options.chooses
            repeated(lambda: manifest.choose(chooses))

    def close(self) -> None:
        """Close the rescue file and the manifest; mark a run that did not end as a fault, unless it stops at once."""
        self._to_close.close()
        if not self.left_at_once:
            with suppress(StorageError, ManifestError):
                repeated(lambda: self._manifest.leave(now=time.time(), outcome="fault"))
        self._manifest.close()

    def work(self) -> tuple[StorageError | None, KeyboardInterrupt | None]:
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
        self._manifest.detach()
        self._begun.rescue.close()
        # They are matched by their key. If that fails, the next run imports them.
        with suppress(StorageError, ManifestError, UsageError):
            check_not_moved(self._manifest)
            import_rescued(self._manifest, self._job, time.time())

    def conclude(self, failure: StorageError | None, interrupted: KeyboardInterrupt | None, began: float) -> RunResult:
        """Record the end of the run; return its result, or raise what ended it.

        `began` is in seconds of the monotonic clock. Raise `StorageError` if the manifest cannot be written.
        """
        manifest = self._manifest
        self._begun.rescue.close()
        try:
            if (self._begun.rescue.used or manifest.shared) and failure is None and not self.left_at_once:
                # The manifest may only have been slow, or another worker may have lost its connection.
                self._import_rescued()
            if not self.left_at_once:
                self._record_end(failed=failure is not None)
            if interrupted is not None:
                raise interrupted
            return self._result(time.monotonic() - began)
        except StorageError:
            # The first failure says more than the failure to record the end.
            raise failure or StorageError(f"{manifest.name} cannot be written") from None

    def _import_rescued(self) -> None:
        try:
            import_rescued(self._manifest, self._job, time.time())
        except StorageError as error:
            text = f"task ids may wait in {self._job.output_dir} for the next run: {error}"
            self._emit(Event(EventKind.WARNING, text))

    def _record_end(self, *, failed: bool) -> None:
        """Record the durations of tasks for the next run, then the end of this one."""
        manifest = self._manifest
        task_times = self.schedule.learnt()
        if task_times and not failed:
            # Not after a failure: a full disk may just have room for the end of the run.
            repeated(lambda: manifest.keep_task_times(task_times))
        repeated(lambda: manifest.end_run(now=time.time(), outcome=self.outcome))

    def _result(self, seconds: float) -> RunResult:
        context, manifest, verify = self.context, self._manifest, self.options.verify
        with ManifestReader(manifest.place) as reader:
            return RunResult(
                stats=self.stats,
                entered=self._begun.entered,
                tasks=reader.counts(),
                images=reader.image_counts(),
                totals=reader.totals(),
                seconds=seconds,
                calls=self.calls,
                stop_reason=context.control.reason if context else None,
                stop_text=context.control.text if context else "",
                signal=self.signal,
                verified=context.record.verified if context else Verified(),
                not_there=NotThere(*manifest.not_there(verify.named), manifest.waiting(), manifest.unrecoverable())
                if verify is not None
                else None,
                flagged=reader.flagged_tasks(),
                rechecks=context.record.rechecks if context else {},
                warnings=[text for task in reader.flagged(WARNINGS) for text in task.warnings][:WARNINGS],
            )

    async def _run(self) -> None:
        job = self._job
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
            Service(self._origin, self._key, connections=connections) as service,
            ImageClient(self._origin) as images,
        ):
            self._load_durations()
            control = StopControl(self._emit, service.give_up_connecting)
            clock = RunClock(_steady_clock(), time.monotonic)
            context = self.context = RunContext(
                job=job,
                options=self.options,
                start=self._begun,
                writer=writer,
                service=service,
                folder=self._folder,
                references=self._references,
                schedule=self.schedule,
                clock=clock,
                random=self._random,
                control=control,
                health=ServiceHealth(service, control, AdaptiveRateLimiter(job.run.rate), clock.monotonic),
                coordination=_coordination(writer, job, clock, control) if self._manifest.shared else Coordination(),
                record=RunRecord(self.stats),
            )
            if self._interrupted:
                context.control.end(StopReason.INTERRUPTED, "interrupted at its start")
            try:
                await self._work_to_end(context, images)
            finally:
                self.calls = service.calls + images.calls

    def _load_durations(self) -> None:
        """Load the task durations measured by earlier runs."""
        with ManifestReader(self._manifest.place) as reader:
            for resolution, seconds in reader.task_times().items():
                self.schedule.learn(resolution, seconds)

    async def _work_to_end(self, context: RunContext, images: ImageClient) -> None:
        """Work to the end. A cancellation ends the run like Ctrl-C, so that no paid result is dropped."""
        work = self._work = asyncio.ensure_future(Scheduler(context, images).run())
        loop = asyncio.get_running_loop()

        def asked(at_once: bool) -> None:  # noqa: FBT001 - called by the interruption
            loop.call_soon_threadsafe(self._on_interruption, context, at_once)

        cancelled: asyncio.CancelledError | None = None
        with self._interruption.heard(asked), _time_limit(context):
            while not work.done():
                try:
                    await asyncio.wait({work})
                except asyncio.CancelledError as error:
                    cancelled = error
                    self._interrupt("cancellation", None)
        if work.cancelled():
            self.left_at_once = True
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
            self.signal = number
            if self.context is not None:
                more = "what is being sent or written is finished; once more leaves at once"
                self.context.control.end(StopReason.INTERRUPTED, why, more=more)

    def _on_interruption(self, context: RunContext, at_once: bool) -> None:  # noqa: FBT001 - called by the loop
        """Handle an interruption; stop at once only if `at_once` is set, however often it is called."""
        if not self._interrupted:
            self._interrupted = True
            context.control.end(StopReason.INTERRUPTED, "it was asked to end")
        if at_once:
            self._stop_at_once()

    def _on_connection_lost(self, text: str) -> None:
        if self.context is not None:
            self.context.control.warn(f"{text}; nothing new is sent before it answers again")

    def _stop_at_once(self) -> None:
        """Cancel everything at once; the next run recovers."""
        self._manifest.abort_retries()
        if self._work is not None:
            self.left_at_once = True
            self._work.cancel()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Handle Ctrl-C, SIGTERM and SIGHUP as interruptions, if the run may handle signals."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if self._handles_signals else ()
        for number in numbers:
            loop.add_signal_handler(number, self._interrupt, number.name, number)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


def _steady_clock() -> Callable[[], float]:
    """Return a clock of Unix seconds that advances evenly, also while the machine sleeps and if its clock is set."""
    # On Linux, CLOCK_MONOTONIC stops while the machine sleeps.
    kind = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    offset = time.time() - time.clock_gettime(kind)
    return lambda: offset + time.clock_gettime(kind)


def _coordination(writer: ManifestWriter, job: Job, clock: RunClock, control: StopControl) -> Coordination:
    """Return what makes the run one of several workers."""
    lease = WorkerLease(writer, clock=clock.unix, warn=control.warn)
    claims = ClaimBatcher(
        writer, job.budget, job.run.rate, clock=clock.unix, monotonic=clock.monotonic, may_go_on=control.may_submit,
        rest=control.rest, heard=lease.on_heartbeat,
    )  # fmt: skip
    return Coordination(lease, claims)


@contextmanager
def _time_limit(context: RunContext) -> Iterator[None]:
    seconds = context.options.max_duration
    if seconds is None:
        yield
        return
    text = f"--max-duration {seconds:g} s is over"
    handle = asyncio.get_running_loop().call_later(seconds, context.control.end, StopReason.TIME, text)
    try:
        yield
    finally:
        handle.cancel()


def _progress(manifest: Manifest) -> tuple[int, int]:
    """Return how many images are stored, and how many the job asks for."""
    with ManifestReader(manifest.place) as reader:
        return reader.image_counts().get(ImageState.STORED, 0), reader.wanted()[1]
