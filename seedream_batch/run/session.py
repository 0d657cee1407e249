"""One run from its lock to its result: opens everything, works, closes everything, whatever happens."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from random import Random
from urllib.parse import urlsplit

from seedream_batch import __version__
from seedream_batch.api.images import ImageClient
from seedream_batch.api.secret import ApiKey
from seedream_batch.api.service import Service, is_loopback
from seedream_batch.errors import UsageError
from seedream_batch.files.folder import OutputFolder
from seedream_batch.manifest import Manifest, ManifestReader, ManifestWriter
from seedream_batch.manifest.enter import Entered
from seedream_batch.manifest.lock import MANIFEST, run_lock
from seedream_batch.manifest.rescue import RescueFile
from seedream_batch.model.job import Job, Reference
from seedream_batch.model.task import ImageState, TaskSpec, TaskState, Totals
from seedream_batch.pacing import PollSchedule, SubmissionPace
from seedream_batch.run.context import Context, Event, RunOptions, Stats, StopReason
from seedream_batch.run.engine import Engine


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended; times in seconds, money in millionths of a USD."""

    stats: Stats
    entered: Entered
    tasks: dict[TaskState, int]
    images: dict[ImageState, int]
    totals: Totals
    seconds: float
    calls: int
    stop_reason: StopReason | None
    stop_text: str
    signal: int | None

    @property
    def left(self) -> int:
        """Tasks with work left that a further run would do."""
        open_states = (TaskState.PLANNED, TaskState.SUBMITTING, TaskState.ACCEPTED)
        return sum(self.tasks.get(state, 0) for state in open_states) + self.images.get(ImageState.ANNOUNCED, 0)


def run_job(
    job: Job,
    *,
    tasks: Iterable[TaskSpec],
    references: Mapping[str, Reference],
    service: AbstractContextManager[str],
    key: ApiKey,
    options: RunOptions,
    emit: Callable[[Event], None],
    started: Callable[[Stats, int, int], None],
    random: Random | None = None,
) -> RunResult:
    """Runs a job until nothing is left to do or something stops it.

    `tasks` are entered into the manifest in one transaction; `references` holds the local images they use once they
    are all read. `service` gives the origin of the service; it is entered under the lock and left with it.

    `emit` gets every event, `started` once the live counters, the images that the job asks for and those stored
    already. Raises `ManifestLocked`, `InvalidJob`, `StorageError`, `UsageError`.
    """
    folder = OutputFolder(job.output_dir)
    folder.prepare()
    with run_lock(job.output_dir), service as origin:
        began = time.monotonic()
        manifest = Manifest(job.output_dir / MANIFEST)
        try:
            _same_service(manifest, origin)
            now = time.time()
            facts = {"job": job.name, "job_file": str(job.file), "service": origin}
            if not manifest.fact("created_at"):
                facts["created_at"] = f"{now:.3f}"
            manifest.tell(facts)
            manifest.begin_run(now=now, pid=os.getpid(), host=platform.node(), version=__version__, service=origin)
            rescue = RescueFile(job.output_dir)
            if manifest.take_in(rescue.read(), now, timeout=job.run.task_timeout):
                rescue.drop()
            entered = manifest.enter(tasks, now)
            runner = _Runner(job, references, rescue, manifest, folder, origin, key, options, emit, random or Random())
            stored, wanted = _progress(manifest)
            started(runner.stats, wanted, stored)
            outcome = "failed"
            try:
                asyncio.run(runner.run())
                stopped = runner.context.stop_reason if runner.context else None
                outcome = str(stopped) if stopped else "finished"
            finally:
                rescue.drop_if_empty()
                manifest.end_run(now=time.time(), outcome=outcome)
            return _result(manifest, runner, entered, time.monotonic() - began)
        finally:
            manifest.close()


class _Runner:
    """The part of a run that lives in an event loop."""

    def __init__(
        self,
        job: Job,
        references: Mapping[str, Reference],
        rescue: RescueFile,
        manifest: Manifest,
        folder: OutputFolder,
        origin: str,
        key: ApiKey,
        options: RunOptions,
        emit: Callable[[Event], None],
        random: Random,
    ) -> None:
        self._job = job
        self._references = references
        self._rescue = rescue
        self._manifest = manifest
        self._folder = folder
        self._origin = origin
        self._key = key
        self._options = options
        self._emit = emit
        self._random = random
        self.stats = Stats()
        self.calls = 0
        self.context: Context | None = None
        self.signal: int | None = None

    async def run(self) -> None:
        job = self._job
        writer = ManifestWriter(self._manifest)
        try:
            async with (
                Service(self._origin, self._key, connections=max(16, job.run.max_in_flight)) as service,
                ImageClient(self._origin) as images,
            ):
                context = self.context = Context(
                    job=job,
                    options=self._options,
                    writer=writer,
                    service=service,
                    images=images,
                    folder=self._folder,
                    references=self._references,
                    schedule=PollSchedule(self._random),
                    pace=SubmissionPace(job.run.rate),
                    clock=time.time,
                    monotonic=time.monotonic,
                    random=self._random,
                    emit=self._emit,
                    rescue=self._rescue,
                    stats=self.stats,
                )
                with self._signals(context), _time_limit(context):
                    try:
                        await Engine(context).run()
                    finally:
                        self.calls = service.calls + images.calls
        finally:
            await writer.close()

    @contextmanager
    def _signals(self, context: Context) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM lets what is being written finish, the second leaves at once."""
        loop = asyncio.get_running_loop()
        main = asyncio.current_task()

        def stop(number: int) -> None:
            if self.signal is None:
                self.signal = number
                name = signal.Signals(number).name
                context.end(StopReason.INTERRUPTED, name)
                context.tell(f"{name}: finishing what is being sent or written; once more leaves at once")
            elif main is not None:
                main.cancel()

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in numbers:
            # Only a main thread can have signal handlers; a library user elsewhere keeps their own.
            with suppress(ValueError, RuntimeError, NotImplementedError):
                loop.add_signal_handler(number, stop, number)
        try:
            yield
        except asyncio.CancelledError:
            if self.signal is None:
                raise
        finally:
            for number in numbers:
                with suppress(ValueError, RuntimeError, NotImplementedError):
                    loop.remove_signal_handler(number)


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


def _same_service(manifest: Manifest, origin: str) -> None:
    """Refuses to mix what an emulator made with what was paid for: task ids of one mean nothing to the other."""
    before = manifest.fact("service")
    if before and _is_local(before) != _is_local(origin):
        raise UsageError(
            f"{manifest.path} belongs to {before}, and this run would go to {origin}: what one made the other does not"
            " know. Give the job another output.dir, or move that folder away"
        )


def _is_local(origin: str) -> bool:
    return is_loopback(urlsplit(origin).hostname or "")


def _progress(manifest: Manifest) -> tuple[int, int]:
    with ManifestReader(manifest.path) as reader:
        return reader.image_counts().get(ImageState.STORED, 0), reader.wanted()[1]


def _result(manifest: Manifest, runner: _Runner, entered: Entered, seconds: float) -> RunResult:
    context = runner.context
    with ManifestReader(manifest.path) as reader:
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
        )
