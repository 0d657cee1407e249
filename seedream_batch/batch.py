"""Plan a job and run it: the functions that Python programs and the command line call."""

from __future__ import annotations

import asyncio
import codecs
import dataclasses
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Generic, TypeVarTuple

from seedream_batch.client.secret import ApiKey
from seedream_batch.client.service import origin_of
from seedream_batch.engine.events import Event, RunOptions, Stats
from seedream_batch.engine.interruption import Interruption
from seedream_batch.engine.job_identity import readable
from seedream_batch.engine.session import RunResult, RunSession
from seedream_batch.engine.startup import Source
from seedream_batch.engine.work import Generate, Work
from seedream_batch.environment import api_key, origin
from seedream_batch.errors import UsageError
from seedream_batch.files.local_folder import OutputFolder
from seedream_batch.jobfile import LoadedJob
from seedream_batch.operations.make_plan import make_plan
from seedream_batch.planning import Plan
from seedream_batch.selection.cell_filter import chosen

Args = TypeVarTuple("Args")

Service = str | AbstractContextManager[str] | None
OnEvent = Callable[[Event], object] | None
OnStart = Callable[[Stats, int, int], object] | None


def plan(job: LoadedJob, *, select: Sequence[str] = (), resend: bool | None = None) -> Plan:
    """Return what a run of the job would do, and why; change nothing, call no service, need no key.

    Args:
        job: The result of `load_job`.
        select: Only tasks with these values may be bought or resent: `["subject=fox", "size=1:1,16:9"]`.
        resend: Whether uncertain tasks are resent under their key; None: as the job says in `run.on_unknown`.

    Raises:
        InvalidJob: A cell of the job has a problem; all problems are reported.
        ManifestError: The manifest in the output folder cannot be read.
        UsageError: `select` names what the job does not have.
    """
    readable(job.job, moved=False)
    return make_plan(
        job.tasks(),
        job.job.manifest,
        resend=job.job.run.resends if resend is None else resend,
        now=time.time(),
        chooses=chosen(select, job.job) if select else None,
        folder=OutputFolder(job.job.output_dir) if job.job.store is None else None,
    )


def run(
    job: LoadedJob,
    options: RunOptions | None = None,
    *,
    select: Sequence[str] = (),
    service: Service = None,
    key: str | ApiKey | None = None,
    on_event: OnEvent = None,
    on_start: OnStart = None,
    interruption: Interruption | None = None,
    signals: bool = False,
) -> RunResult:
    """Generate the missing images of a job; return when nothing is left to do.

    What stops a run early is not an error: the result's `stop_reason` names it, and `left` is how many tasks wait for
    the next run. A run may be stopped or killed at any moment: the next run continues, and buys nothing twice.

    Ctrl-C raises `KeyboardInterrupt` once what is being sent or written is finished; a second one raises it at once. A
    program that handles SIGINT itself calls `interruption.ask()` there instead.

    Args:
        job: The result of `load_job`.
        options: What this run does; None: everything.
        select: Only tasks with these values are bought or resent: `["subject=fox", "size=1:1,16:9"]`. Tasks in flight
            are paid for, and collected in any case.
        service: The address of the service, or a context manager that yields it, entered once the run holds the lock
            of the output folder, and left before that is released. None: `APIMART_BASE_URL`, else the provider's.
        key: The API key. None: `APIMART_API_KEY`, else the file that `APIMART_API_KEY_FILE` names.
        on_event: Receives every event. An error it raises ends the run in good order, and is raised then.
        on_start: Receives the live counters, and how many images the job asks for and has stored, before any event.
        interruption: Ends the run, from another thread or from a callback.
        signals: Let SIGINT, SIGTERM and SIGHUP end the run in good order; only in the main thread.

    Raises:
        InvalidJob: A cell of the job has a problem; nothing was sent.
        ManifestLocked: Another run holds the output folder.
        ManifestError: The manifest in the output folder cannot be used.
        StorageError: A file or folder cannot be read or written.
        UsageError: There is no key, `select` names what the job does not have, an event loop is running, `signals` is
            used outside the main thread, or the folder belongs to another job or service.
    """
    return perform(
        job, Generate(), options, select=select, service=service, key=key, on_event=on_event, on_start=on_start,
        interruption=interruption, signals=signals,
    )  # fmt: skip


def perform(
    job: LoadedJob,
    work: Work,
    options: RunOptions | None = None,
    *,
    select: Sequence[str] = (),
    service: Service = None,
    key: str | ApiKey | None = None,
    on_event: OnEvent = None,
    on_start: OnStart = None,
    interruption: Interruption | None = None,
    signals: bool = False,
) -> RunResult:
    """Run as `run` does, but do any kind of work."""
    _check_process(signals=signals)
    interruption = interruption or Interruption()
    events = _Listener(on_event, interruption)
    start = _Listener(on_start, interruption)
    options = options or RunOptions()
    resend = job.job.run.resends if options.resend is None else options.resend
    chooses = chosen(select, job.job) if select else options.chooses
    if service is None or isinstance(service, str):
        service = nullcontext(origin() if service is None else origin_of(service))
    with RunSession(
        job=job.job,
        source=Source(job.tasks(), job.files, lambda: len(job.references)),
        references=job.references,
        work=work,
        options=dataclasses.replace(options, resend=resend, chooses=chooses),
        key=api_key() if key is None else ApiKey(key) if isinstance(key, str) else key,
        service=service,
        emit=events,
        started=start,
        interruption=interruption,
        signals=signals,
    ) as session:
        result = session.run()
    for listener in (start, events):
        listener.raise_error()
    return result


async def run_async(
    job: LoadedJob,
    options: RunOptions | None = None,
    *,
    select: Sequence[str] = (),
    service: Service = None,
    key: str | ApiKey | None = None,
    on_event: OnEvent = None,
    on_start: OnStart = None,
    interruption: Interruption | None = None,
) -> RunResult:
    """Run as `run` does, beside other work of the event loop: the run has a thread and a loop of its own.

    `on_event` and `on_start` are called in the caller's loop. Cancelling this ends the run in good order, like the
    first Ctrl-C: nothing new is sent, what is being sent or written is finished, then the cancellation is raised.
    Cancelled again, the run stops at once. To get the result of a run that is ended early, use an `interruption`.
    """
    loop = asyncio.get_running_loop()
    interruption = interruption or Interruption()
    events = _Listener(on_event, interruption)
    start = _Listener(on_start, interruption)
    work = asyncio.ensure_future(
        asyncio.to_thread(
            run,
            job,
            options,
            select=select,
            service=service,
            key=key,
            on_event=lambda event: loop.call_soon_threadsafe(events, event),
            on_start=lambda *counts: loop.call_soon_threadsafe(start, *counts),
            interruption=interruption,
        )
    )
    result = await _finished(work, interruption)
    for listener in (start, events):
        listener.raise_error()
    return result


async def _finished(work: asyncio.Future[RunResult], interruption: Interruption) -> RunResult:
    """Wait for a run, also when cancelled; the first cancellation interrupts it, the second stops it at once."""
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError as error:
            interruption.ask(at_once=cancelled is not None)
            cancelled = error
    if cancelled is not None:
        raise cancelled from work.exception()
    return work.result()


def _check_process(*, signals: bool) -> None:
    """Raise `UsageError` if a run cannot work in this thread, or with this process's file names."""
    with suppress(RuntimeError):
        asyncio.get_running_loop()
        raise UsageError("run() would block the running event loop; await run_async() instead")
    if signals and threading.current_thread() is not threading.main_thread():
        raise UsageError("only the main thread can handle signals")
    if codecs.lookup(sys.getfilesystemencoding()).name != "utf-8":
        # The names of images must not depend on the locale of whoever runs the job.
        encoding = sys.getfilesystemencoding()
        raise UsageError(f"file names use {encoding}, not UTF-8; start Python with -X utf8 or PYTHONUTF8=1")


class _Listener(Generic[*Args]):
    """Calls a callback until it fails: then the run ends in good order, and the error is kept."""

    def __init__(self, tell: Callable[[*Args], object] | None, interruption: Interruption) -> None:
        self._tell = tell
        self._interruption = interruption
        self._error: Exception | None = None

    def __call__(self, *args: *Args) -> None:
        if self._tell is None or self._error is not None:
            return
        try:
            self._tell(*args)
        except Exception as error:  # noqa: BLE001 - raised again by `raise_error`
            # Raised inside the run, it could prevent paid results from being recorded.
            self._error = error
            self._interruption.ask()

    def raise_error(self) -> None:
        """Raise the callback's error, if any."""
        if self._error is not None:
            raise self._error
