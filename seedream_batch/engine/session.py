"""One run from its lock to its result: opens everything, works, closes everything, whatever happens."""

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
from seedream_batch.engine.context import MOST_CONNECTIONS, Context
from seedream_batch.engine.events import Event, EventKind, RunOptions, Stats, StopReason, Verified
from seedream_batch.engine.interruption import Interruption
from seedream_batch.engine.job_identity import has_other_folders, known_here, still_here
from seedream_batch.engine.key_check import KeyCheck
from seedream_batch.engine.manifest_checks import hold_folder, take_in_rescued
from seedream_batch.engine.open_files import affordable
from seedream_batch.engine.scheduler import Engine
from seedream_batch.engine.startup import Begun, Source, begin
from seedream_batch.engine.workers.claim_batcher import Claims
from seedream_batch.engine.workers.heartbeat import Membership
from seedream_batch.errors import Fenced, ManifestError, StorageError, UsageError
from seedream_batch.files.destination import Destination
from seedream_batch.files.open import destination
from seedream_batch.manifest import Manifest, ManifestReader
from seedream_batch.manifest.async_writer import ManifestWriter, repeated
from seedream_batch.manifest.maintenance_store import Lost
from seedream_batch.manifest.run_lock import run_lock
from seedream_batch.manifest.sync_job import Entered
from seedream_batch.model.job import MICRO, Job, Reference
from seedream_batch.model.locations import Server
from seedream_batch.model.outcome import Polled
from seedream_batch.model.task import ImageRecord, ImageState, TaskRecord, TaskState, Totals
from seedream_batch.pacing import PollSchedule, SubmissionPace

WARNINGS = 20
"""Results that are not what was requested, named with their reason; the count is whole."""


@dataclass(frozen=True, slots=True)
class NotThere:
    """What of the chosen tasks of the job is not in the folder once a run ended, in images."""

    count: int
    images: list[tuple[ImageRecord, TaskRecord]]
    """The images with their tasks: all of them, or the first, as was asked for."""
    waiting: int
    """With a link, to be fetched."""
    lost: Lost
    """Those that no link gives."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended; times in seconds, money in millionths of a USD."""

    stats: Stats
    entered: Entered
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
    """Why: the first of them."""
    rechecks: Mapping[int, Polled]
    """What the last poll of each lost or flagged task showed, by its number in the manifest."""

    @property
    def cost_usd(self) -> float:
        """What this run cost, as far as the service has told."""
        return self.stats.cost / MICRO

    @property
    def total_cost_usd(self) -> float:
        """What all runs of the job cost so far."""
        return self.totals.cost / MICRO

    @property
    def left(self) -> int:
        """Tasks with work left that a further run would do."""
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
    """Runs a job until nothing is left to do or something stops it.

    The tasks of `source` are entered into the manifest in one transaction; `references` holds the local images they use
    once they are all read. With a manifest on a server the run is a worker, and there may be others. `service` gives
    the origin of the service; it is entered under the lock and left with it.

    `emit` gets every event, `started` once the live counters, the images that the job asks for and those stored
    already; neither may raise. `interruption` ends the run from outside, and so do Ctrl-C, SIGTERM and SIGHUP with
    `signals`, which needs the main thread. Raises `ManifestLocked`, `InvalidJob`, `StorageError`, `UsageError`.
    """
    known_here(job)
    folder = destination(job)
    folder.prepare()
    # What is stored is looked at by one alone.
    shared = isinstance(job.manifest, Server) and options.verify is None
    with run_lock(job.output_dir, shared=isinstance(job.manifest, Server)), service as origin, ExitStack() as stack:
        began = time.monotonic()
        begun: Begun | None = None
        runner: _Runner | None = None
        manifest = Manifest(job.manifest, shared=shared)
        try:
            hold_folder(stack, manifest, job)
            begun = begin(
                manifest, job, source, origin, lambda text: emit(Event(EventKind.WARNING, text)),
                key=None if options.verify is not None and not options.verify.ask else key,
                confirmed=options.same_account, verifies=options.verify is not None,
            )  # fmt: skip
            rescue, entered = begun.rescue, begun.entered
            if options.chooses is not None:
                chooses = options.chooses
                repeated(lambda: manifest.choose(chooses))
            runner = _Runner(
                job, references, begun, manifest, folder, origin, key, options, emit, random or Random(),
                interruption, signals,
            )  # fmt: skip
            stored, wanted = _progress(manifest)
            started(runner.stats, wanted, stored)
            try:
                failure, interrupted = _work(runner)
            except Fenced:
                manifest.step_out()
                rescue.close()
                # What came back too late is known by its key all the same; else the next run takes it in.
                with suppress(StorageError, ManifestError, UsageError):
                    still_here(manifest)
                    take_in_rescued(manifest, job, time.time())
                raise
            rescue.close()
            try:
                if (rescue.used or shared) and failure is None and not runner.left_at_once:
                    # The manifest may only have been slow, or another worker have been cut off.
                    try:
                        take_in_rescued(manifest, job, time.time())
                    except StorageError as error:
                        emit(
                            Event(EventKind.WARNING, f"task ids may wait in {job.output_dir} for the next run: {error}")
                        )
                if not runner.left_at_once:
                    _end(manifest, runner, failed=failure is not None)
                if interrupted is not None:
                    raise interrupted
                return _result(manifest, runner, entered, time.monotonic() - began)
            except StorageError:
                # The first failure says more than that the end could not be written down either.
                raise failure or StorageError(f"{manifest.name} cannot be written") from None
        finally:
            if begun is not None:
                begun.rescue.close()
            if runner is None or not runner.left_at_once:
                with suppress(StorageError, ManifestError):
                    repeated(lambda: manifest.leave(now=time.time(), outcome="fault"))
            manifest.close()


def _end(manifest: Manifest, runner: _Runner, *, failed: bool) -> None:
    """Writes down that the run ended, and what the next one is to know."""
    task_times = runner.schedule.learnt()
    if task_times and not failed:
        # Good to know, and not worth the room that the last word may need on a full disk.
        repeated(lambda: manifest.keep_task_times(task_times))
    repeated(lambda: manifest.end_run(now=time.time(), outcome=runner.outcome))


def _work(runner: _Runner) -> tuple[StorageError | None, KeyboardInterrupt | None]:
    """Runs; a full or broken disk ends a run in good order, and is told with its result.

    So does a Ctrl-C, of which asyncio makes a cancellation where the run handles no signals.
    """
    try:
        asyncio.run(runner.run())
    except StorageError as error:
        return error, None
    except KeyboardInterrupt as error:
        return None, error
    return None, None


class _Runner:
    """The part of a run that lives in an event loop."""

    def __init__(
        self,
        job: Job,
        references: Mapping[str, Reference],
        begun: Begun,
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
        self._begun = begun
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
        self.context: Context | None = None
        self.signal: int | None = None
        self.left_at_once = False
        self._interrupted = False
        self._work: asyncio.Task[None] | None = None

    @property
    def outcome(self) -> str:
        """How the run ended, in a word."""
        stopped = self.context.stop_reason if self.context else None
        return str(stopped) if stopped else "finished"

    async def run(self) -> None:
        job = self._job
        connections = affordable(min(max(16, job.run.max_in_flight), MOST_CONNECTIONS))
        # Signals until the very end: Python's own answer to a Ctrl-C would break off what is being written down.
        with self._signals():
            writer = ManifestWriter(self._manifest, lost=self._line_lost)
            try:
                await self._run(writer, job, connections)
            finally:
                await writer.close()

    async def _run(self, writer: ManifestWriter, job: Job, connections: int) -> None:
        async with (
            Service(self._origin, self._key, connections=connections) as service,
            ImageClient(self._origin) as images,
        ):
            self._learn()
            context = self.context = Context(
                job=job,
                options=self.options,
                writer=writer,
                service=service,
                images=images,
                folder=self._folder,
                references=self._references,
                schedule=self.schedule,
                pace=SubmissionPace(job.run.rate),
                clock=_steady_clock(),
                monotonic=time.monotonic,
                random=self._random,
                emit=self._emit,
                rescue=self._begun.rescue,
                key=KeyCheck(service, time.monotonic),
                cut_off=self._begun.cut_off,
                alone=self._begun.alone,
                other_folders=has_other_folders(self._manifest, job),
                stats=self.stats,
            )
            if self._manifest.shared:
                _join(context)
            if self._interrupted:
                context.end(StopReason.INTERRUPTED, "interrupted at its start")
            try:
                await self._carry_out(context)
            finally:
                self.calls = service.calls + images.calls

    def _learn(self) -> None:
        """What earlier runs have left of how long tasks take."""
        with ManifestReader(self._manifest.place) as reader:
            for resolution, seconds in reader.task_times().items():
                self.schedule.learn(resolution, seconds)

    async def _carry_out(self, context: Context) -> None:
        """Works to the end. Whoever cancels this asks for the end as Ctrl-C does: what is paid for is not dropped."""
        work = self._work = asyncio.ensure_future(Engine(context).run())
        loop = asyncio.get_running_loop()

        def asked(at_once: bool) -> None:  # noqa: FBT001 - called by the interruption
            loop.call_soon_threadsafe(self._asked, context, at_once)

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
        """The first time, lets what is being sent or written finish; the second time, leaves at once."""
        if self._interrupted:
            self._leave()
        else:
            self._interrupted = True
            self.signal = number
            if self.context is not None:
                more = "what is being sent or written is finished; once more leaves at once"
                self.context.end(StopReason.INTERRUPTED, why, more=more)

    def _asked(self, context: Context, at_once: bool) -> None:  # noqa: FBT001 - called by the loop
        """As an interruption asks: however often, it only leaves at once if that is what is asked for."""
        if not self._interrupted:
            self._interrupted = True
            context.end(StopReason.INTERRUPTED, "it was asked to end")
        if at_once:
            self._leave()

    def _line_lost(self, text: str) -> None:
        if self.context is not None:
            self.context.tell(f"{text}; nothing new is sent before it answers again")

    def _leave(self) -> None:
        """As good as a kill: the next run looks for what was left half done."""
        self._manifest.hurry()
        if self._work is not None:
            self.left_at_once = True
            self._work.cancel()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C, SIGTERM and SIGHUP interrupt, where the run may handle signals."""
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
    """Unix seconds that go on evenly from here, over a sleep as well, whatever becomes of the machine's clock."""
    # The plain monotonic clock of Linux stands still while the machine sleeps.
    kind = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    offset = time.time() - time.clock_gettime(kind)
    return lambda: offset + time.clock_gettime(kind)


def _join(context: Context) -> None:
    """Makes the run one of several workers."""
    context.crew = Membership(context.writer, clock=context.clock, told=context.tell)
    context.claims = Claims(
        context.writer, context.job.budget, context.job.run.rate, clock=context.clock, monotonic=context.monotonic,
        may_go_on=context.may_submit, rest=context.rest, heard=context.crew.heard_of,
    )  # fmt: skip


@contextmanager
def _time_limit(context: Context) -> Iterator[None]:
    seconds = context.options.max_duration
    if seconds is None:
        yield
        return
    text = f"--max-duration {seconds:g} s is over"
    handle = asyncio.get_running_loop().call_later(seconds, context.end, StopReason.TIME, text)
    try:
        yield
    finally:
        handle.cancel()


def _progress(manifest: Manifest) -> tuple[int, int]:
    with ManifestReader(manifest.place) as reader:
        return reader.image_counts().get(ImageState.STORED, 0), reader.wanted()[1]


def _result(manifest: Manifest, runner: _Runner, entered: Entered, seconds: float) -> RunResult:
    context = runner.context
    verify = runner.options.verify
    with ManifestReader(manifest.place) as reader:
        return RunResult(
            stats=runner.stats,
            entered=entered,
            tasks=reader.counts(),
            images=reader.image_counts(),
            totals=reader.totals(),
            seconds=seconds,
            calls=runner.calls,
            stop_reason=context.stop_reason if context else None,
            stop_text=context.stop_text if context else "",
            signal=runner.signal,
            verified=context.verified if context else Verified(),
            not_there=NotThere(*manifest.not_there(verify.named), manifest.waiting(), manifest.beyond_links())
            if verify is not None
            else None,
            flagged=reader.flagged_tasks(),
            rechecks=context.rechecks if context else {},
            warnings=[text for one in reader.flagged(WARNINGS) for text in one.warnings][:WARNINGS],
        )
