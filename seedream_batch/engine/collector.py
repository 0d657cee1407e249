"""Collect results: poll accepted tasks until they end, and download their images."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from seedream_batch.client.images import MAX_IMAGE, ImageClient, host_of
from seedream_batch.delivery import in_place, is_placeholder, leaves_count_open, wrong_count, wrong_picture
from seedream_batch.engine.circuit_breaker import Breaker
from seedream_batch.engine.context import RunContext, event
from seedream_batch.engine.download_writer import DownloadWriter
from seedream_batch.engine.events import EventKind, StopReason
from seedream_batch.engine.file_placer import FilePlacer
from seedream_batch.engine.placement import assign_place, clear_leftovers, step_aside_earlier
from seedream_batch.engine.stop_control import RunStopped, Signal
from seedream_batch.errors import StorageError
from seedream_batch.files.content_encoding import uncompressed
from seedream_batch.files.destination import Destination
from seedream_batch.files.image_inspection import BadPicture, Picture, has_end, inspect
from seedream_batch.files.local_folder import Occupied
from seedream_batch.files.temp_file import TempFile, writing
from seedream_batch.lifecycle import (
    LEAST_POLLS,
    PATIENCE,
    Move,
    Outlook,
    Series,
    after_poll,
    backoff,
    combine,
    is_odd,
    makes_sense,
    poll_pause,
    richer,
    says_nothing,
    series,
    with_images,
)
from seedream_batch.manifest import Manifest
from seedream_batch.manifest.image_store import StoredFile, Storing
from seedream_batch.manifest.task_store import Delivery
from seedream_batch.model.job import REFERENCE
from seedream_batch.model.outcome import Fetched, ImageUrl, Poll, Polled
from seedream_batch.model.service_messages import is_dead_reference
from seedream_batch.model.task import (
    KNOWN_FOR,
    SAME_BYTES,
    ImageRecord,
    ImageState,
    TaskRecord,
    TaskState,
    image_path,
)
from seedream_batch.pacing import TaskPoller

DEFAULT_LINK_LIFETIME = 24 * 3600.0
"""Seconds that a result link is valid when the service does not say [Seedream 4.5 API documentation]."""

MOST_TRIES = 5
"""Downloads of one image per run that may fail for a reason that waiting does not fix."""

TRYING = 600.0
"""Seconds for which a run retries a download that may still succeed; then the next run retries it."""

MORE_TRIES = 2
"""Further downloads of an image that is not what was requested, before it is stored."""

MOST_IN_VAIN = 8
"""Repeated downloads that brought no better image after which a run stops making them."""

MOST_DENIED = 3
"""Polls in a row that may be refused (401, 403) before the run stops polling."""

MOST_LOST_POLLS = 5
"""Polls of a lost task per run."""

MOST_POLLS = 5
"""Polls of a finished task until one gives a clear answer."""

GRACE_AFTER_START = 60.0
"""Least seconds that a task of an earlier run is polled, even if its deadline has passed."""

PARALLEL_DOWNLOADS = 8


@dataclass(frozen=True, slots=True)
class _DownloadResult:
    """The result of one download: a verified temp file, or what went wrong."""

    kind: Fetched
    message: str = ""
    bad: bool = False
    """Every byte was received, but they are no valid image."""
    stands_in: bool = False
    """It is a placeholder of the image host."""
    lasting: bool = False
    """Retrying soon is of little use."""
    retry_after: float = 0.0
    """Seconds that the host asks to wait."""
    temp_path: Path | None = None
    file: StoredFile | None = None
    picture: Picture | None = None


@dataclass(slots=True)
class _PollHistory:
    """What the polls of one task showed so far; times in seconds of the monotonic clock."""

    least: int
    """Images that a completed task must have."""
    last: Series | None = None
    first_at: float = 0.0
    """When the first poll was answered."""
    best: Poll | None = None
    """The poll with the most images."""
    pause: float = 0.0
    """Seconds until the next poll; 0 where the schedule decides."""
    late: int = 0
    """Polls after the deadline."""
    heard: bool = False
    """Whether one of these got an answer about the task."""
    kept: str = ""
    """Why the last answer that was not fully understood was stored."""
    over: bool = False
    """Whether the task was polled long enough after its deadline."""

    @property
    def series(self) -> Series:
        """The series that the last poll belongs to."""
        if self.last is None:
            raise AssertionError("nothing was polled yet")
        return self.last

    def take(self, poll: Poll, *, age: float, late: float | None, now: float) -> Series:
        """Record a poll of a task of this age, `late` seconds after its deadline; return the series it belongs to."""
        if self.last is None:
            self.first_at = now
        self.last, self.best = series(self.last, poll, now), richer(self.best, poll)
        odd = is_odd(poll, age=age, least=self.least)
        self.pause = poll_pause(self.last.count if odd else 1) if odd or late is not None else 0.0
        if late is not None:
            self.late += 1
            self.heard = self.heard or not says_nothing(poll)
            self.over = self.late >= LEAST_POLLS and late >= PATIENCE
        return self.last


class Collector:
    """Follows tasks from their task id to their files."""

    def __init__(self, context: RunContext, images: ImageClient, breaker: Breaker) -> None:
        self._context = context
        self._images = images
        self._breaker = breaker
        self._paused_hosts: dict[str, float] = {}
        """Until when image hosts asked for no downloads, in seconds of the monotonic clock."""
        self._downloads = asyncio.Semaphore(PARALLEL_DOWNLOADS)
        self._placer = FilePlacer(context.folder)
        self._noted: set[str] = set()
        """Notes about costs that were reported already."""
        self._durations_known: defaultdict[str, Signal] = defaultdict(Signal)
        """For each resolution, set once the duration of its tasks is known."""
        self._outlooks = {True: Outlook(), False: Outlook()}
        """Polls of several tasks taken together: True for tasks of earlier runs, False for tasks of this run."""
        self._useless_repeats = 0
        """Repeated downloads without a better image in a row; negative once one was better."""

    async def poll_to_end(self, task: TaskRecord, *, at_once: bool) -> list[ImageRecord]:
        """Poll an accepted task until it ends; return its images if it succeeded. Raise `RunStopped`.

        With `at_once` the task is from an earlier run, and may have ended long ago. It is polled until its deadline (at
        most `run.task_timeout` seconds from now) and `PATIENCE` seconds longer, whatever the answers are. After that it
        is lost, or left to the next run if no answer was about it. Its age is taken from the clock once and then
        advances with the monotonic clock, so that a clock that jumps neither loses a task nor keeps a run alive. A
        `run.task_timeout` that was raised since the submission gives it more time.
        """
        context = self._context
        began, now = context.clock.monotonic(), context.clock.unix()
        age_then = max(0.0, now - (task.submitted_at or now))
        lifetime = age_then + self._time_left(task, now, at_once=at_once)
        outlook = self._outlooks[at_once]
        history = _PollHistory(_least(task))
        try:
            with closing(context.schedule.watch(task.resolution)) as watch:
                while True:
                    await self._until_due(watch, task.resolution, history, began - age_then, at_once=at_once)
                    age = age_then + context.clock.monotonic() - began
                    late = age - lifetime if age >= lifetime else None
                    poll = await self.look(task, age, overdue=late is not None)
                    await self._store_answer(task, poll, history)
                    now = context.clock.monotonic()
                    last = history.take(poll, age=age, late=late, now=now)
                    if history.pause or makes_sense(poll):
                        outlook.note(task.id, poll, last, now)
                    if poll.kind is Polled.RUNNING:
                        watch.looked(age)
                    await self.notice(poll)
                    move = self._move(poll, history, outlook, age=age, overdue=late is not None, asked=task.images)
                    if move is not None:
                        poll, move = with_images(poll, move, history.best)
                        if poll.kind in {Polled.COMPLETED, Polled.FAILED} and not (
                            at_once and last.since == history.first_at
                        ):
                            self._learn(watch, task.resolution, age - last.lasted(now), poll)
                        return await self._ended(task, poll, move, context.clock.unix())
                    if history.over or (late is not None and last.count >= LEAST_POLLS and says_nothing(poll)):
                        context.record.stats.trouble += 1
                        text = f"no clear answer past its deadline: {poll.message or poll.kind}"
                        context.control.emit(event(EventKind.WARNING, task, text))
                        raise RunStopped
        finally:
            outlook.forget(task.id)

    async def _until_due(
        self, watch: TaskPoller, resolution: str, history: _PollHistory, born: float, *, at_once: bool
    ) -> None:
        """Wait until the next poll of a task is due; `born` in monotonic seconds. Raise `RunStopped`."""
        if history.pause:
            await self._context.control.rest(history.pause)
        elif history.last is not None or not at_once:
            await self._wait(watch, resolution, born)
        if not self._context.health.may_poll:
            raise RunStopped

    def _time_left(self, task: TaskRecord, now: float, *, at_once: bool) -> float:
        """Return the seconds from `now` (Unix seconds) to a task's deadline."""
        timeout = self._context.job.run.task_timeout
        left = max(task.deadline or now, (task.submitted_at or now) + timeout) - now
        # A clock that was set back gives no extra time; after a pause of any length some time is left.
        return max(min(left, timeout), GRACE_AFTER_START if at_once else 0.0)

    def _move(
        self, poll: Poll, history: _PollHistory, outlook: Outlook, *, age: float, overdue: bool, asked: int
    ) -> Move | None:
        """Return what a poll moves its task to; None while the service itself may be at fault.

        Raise `RunStopped` when that has lasted long enough to be an outage.
        """
        context = self._context
        now = context.clock.monotonic()
        last = history.series
        lasted = last.lasted(now)
        move = after_poll(
            poll, age=age, overdue=overdue, polls=last.count, lasted=lasted, asked=asked, least=history.least
        )
        if move is None and history.over and history.heard:
            move = Move(TaskState.LOST, f"no clear end {age:.0f} s after it was accepted")
        if age >= KNOWN_FOR:
            return move
        if alike := outlook.outage(now):
            context.control.end(StopReason.OUTAGE, _outage(alike, last))
            raise RunStopped
        return None if move is not None and move.to is TaskState.LOST and outlook.doubtful(now) else move

    async def find_again(self, task: TaskRecord, *, follow: bool) -> list[ImageRecord]:
        """Poll a lost task a few times, for free; return its images if the service completed it after all.

        A task that is still running becomes accepted again and is followed, if its deadline leaves time. Without
        `follow` every running one becomes accepted, and a later run follows it. Raise `RunStopped`.
        """
        context = self._context
        job = context.job
        least = _least(task)
        last: Series | None = None
        best: Poll | None = None
        move: Move | None = None
        deadline = (task.submitted_at or 0.0) + job.run.task_timeout
        for polls in range(MOST_LOST_POLLS):
            await context.control.rest(poll_pause(polls) if polls else 0.0)
            if not context.health.may_poll:
                raise RunStopped
            poll = await self.look(task, context.clock.unix() - (task.submitted_at or 0.0), overdue=True)
            now = context.clock.monotonic()
            last, best = series(last, poll, now), richer(best, poll)
            await self.notice(poll)
            context.record.rechecks[task.id] = poll.kind
            if poll.kind is Polled.RUNNING:
                if follow and context.clock.unix() >= deadline:
                    break
                if not follow:
                    deadline = max(deadline, context.clock.unix() + job.run.task_timeout)
                reopened = await self._accept_again(task, poll, deadline)
                return await self.poll_to_end(reopened, at_once=True) if follow else []
            move = after_poll(poll, age=0.0, overdue=False, polls=last.count, lasted=last.lasted(now), least=least)
            if move is not None or last.count == LEAST_POLLS:
                break
        poll, move = with_images(poll, move or Move(TaskState.LOST, f"no clear end: {poll.kind}"), best)
        if move.to is TaskState.LOST:
            return []
        reopened = await self._accept_again(task, poll, max(deadline, task.deadline or 0.0))
        return await self._ended(reopened, poll, move, context.clock.unix())

    async def complete(self, task: TaskRecord) -> None:
        """Poll a task that completed with too few images, for free; fetch those that it has by now.

        Raise `RunStopped`.
        """
        context = self._context
        if await context.writer.do(Manifest.is_anothers, task):
            # The service would answer this account that there is no such task.
            return
        poll = await self.clear_answer(task)
        if poll is not None:
            context.record.rechecks[task.id] = poll.kind
        if poll is None or poll.kind is not Polled.COMPLETED:
            return
        now = context.clock.unix()
        at_most = leaves_count_open(json.loads(task.body))

        def add(manifest: Manifest) -> tuple[int, int]:
            with manifest.group():
                known = [image.url for image in manifest.images(task.id)[: manifest.delivered(task.id)]]
                places = in_place([image.url for image in poll.images], known)
                images = [poll.images[place] for place in places]
                added, cost = manifest.delivered_more(
                    task, images, cost=poll.cost, now=now, default_expiry=now + DEFAULT_LINK_LIFETIME
                )
                if added:
                    delivered = len(manifest.images(task.id))
                    manifest.warn_of_task(task.id, wrong_count(delivered, task.images, poll.errors, at_most=at_most))
            return added, cost

        added, cost = await context.writer.do(add)
        if added:
            context.record.stats.added += added
            context.record.stats.cost += cost
            context.control.emit(event(EventKind.FOUND, task, f"{added} more image(s) delivered since it completed"))
        await self.fetch_all(task)

    async def clear_answer(self, task: TaskRecord) -> Poll | None:
        """Poll a finished task; return None if no answer was clear. A single odd answer is not believed."""
        context = self._context
        last: Series | None = None
        for polls in range(1, MOST_POLLS + 1):
            if not context.health.may_poll:
                return None
            poll = await self.look(task, context.clock.unix() - (task.submitted_at or 0.0))
            await self.notice(poll)
            last = series(last, poll, context.clock.monotonic())
            if poll.kind is Polled.COMPLETED:
                return poll
            if poll.kind in {Polled.FAILED, Polled.NOT_FOUND} and last.count >= LEAST_POLLS:
                return poll
            await context.control.rest(backoff(polls, random=context.random))
        return None

    async def _accept_again(self, task: TaskRecord, poll: Poll, deadline: float) -> TaskRecord:
        context = self._context
        why = f"found again by a free poll: {poll.kind}"
        reopened = await context.writer.do(
            Manifest.found_again, task, deadline=deadline, why=why, now=context.clock.unix()
        )
        context.record.stats.found += 1
        context.control.emit(event(EventKind.FOUND, reopened, why))
        return reopened

    async def _wait(self, watch: TaskPoller, resolution: str, born: float) -> None:
        """Wait until the next poll of a task is due; results of other tasks may bring it forward.

        After such a result the wait is computed again, so that tasks waiting for it do not all poll at once.
        """
        context = self._context
        durations_known = self._durations_known[resolution]
        wait = watch.wait(context.clock.monotonic() - born)
        if watch.depends_on_others:
            await context.control.until(durations_known, wait)
            if not durations_known.is_set:
                return
            wait = watch.wait(context.clock.monotonic() - born)
        await context.control.rest(wait)

    def _learn(self, watch: TaskPoller, resolution: str, age: float, poll: Poll) -> None:
        watch.ended(age, poll.took, failed=poll.kind is Polled.FAILED)
        if self._context.schedule.knows(resolution):
            self._durations_known[resolution].set()

    async def fetch_all(self, task: TaskRecord) -> None:
        """Download every announced image of a succeeded task. Raise `RunStopped`."""
        await self.fetch(task, await self._context.writer.do(Manifest.images, task.id))

    async def fetch(self, task: TaskRecord, images: Sequence[ImageRecord]) -> None:
        """Download the announced ones of these images of a task. Raise `RunStopped`."""
        waiting = [image for image in images if image.state is ImageState.ANNOUNCED]
        results = await asyncio.gather(*(self._fetch(task, image) for image in waiting), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        rest = [image for image in images if image.state is not ImageState.ANNOUNCED]
        if waiting and all(results) and all(image.state is ImageState.STORED for image in rest):
            await clear_leftovers(self._context, task, [image.index for image in images])

    async def look(self, task: TaskRecord, age: float, *, overdue: bool = False) -> Poll:
        """Poll every task id of a task once; `age` in seconds since its submission. Raise `RunStopped`."""
        context = self._context
        polls = [await context.control.free(context.service.poll(task_id)) for task_id in task.task_ids]
        return combine(polls, age, overdue=overdue)

    async def _store_answer(self, task: TaskRecord, poll: Poll, history: _PollHistory) -> None:
        """Store an answer that was not fully understood, once, before anything else happens to the task."""
        if poll.kept is not None and poll.kept.why != history.kept:
            history.kept = poll.kept.why
            await self._context.writer.do(Manifest.keep, task, poll.kept, self._context.clock.unix())

    async def notice(self, poll: Poll) -> None:
        """Apply what a poll says about the service as a whole; wait where it asks for a pause. Raise `RunStopped`."""
        context = self._context
        if poll.kind is Polled.NO_ANSWER:
            context.health.unanswered(poll.message)
            if poll.retry_after:
                await context.control.rest(poll.retry_after)
        elif poll.kind is Polled.UNAUTHORIZED and not await context.health.key.is_refused(poll.status):
            context.health.unanswered(f"HTTP {poll.status}: {poll.message}")
        elif poll.kind is Polled.UNAUTHORIZED:
            context.health.denied += 1
            context.control.stop_submitting(
                StopReason.CREDENTIALS, f"the service refuses the API key (HTTP {poll.status})"
            )
            if context.health.denied >= MOST_DENIED:
                context.health.may_poll = False
        elif poll.kind is Polled.RATE_LIMITED:
            wait = poll.retry_after if poll.retry_after is not None else backoff(2, random=context.random)
            context.health.asked_to_wait(wait, f"HTTP {poll.status}")
            context.pause_submissions(wait)
            await context.control.rest(wait)
        else:
            context.health.answered()

    async def _ended(self, task: TaskRecord, poll: Poll, move: Move, now: float) -> list[ImageRecord]:
        """Record the end of a task; return its images if it succeeded."""
        for note in poll.notes:
            self._context.control.emit(event(EventKind.WARNING, task, note))
        match move.to:
            case TaskState.SUCCEEDED:
                return await self._succeeded(task, poll, move, now)
            case TaskState.FAILED:
                await self._failed(task, poll, move, now)
            case TaskState.LOST:
                await self._context.writer.do(Manifest.lost, task, why=move.why, now=now)
                self._context.record.stats.lost += 1
                self._context.control.emit(event(EventKind.LOST, task, move.why))
            case _:
                raise AssertionError(f"a look at a task does not lead to {move.to}")
        return []

    async def _succeeded(self, task: TaskRecord, poll: Poll, move: Move, now: float) -> list[ImageRecord]:
        context = self._context
        at_most = leaves_count_open(json.loads(task.body))
        delivery = Delivery(
            task, poll.images, poll.cost, move.why, now, now + DEFAULT_LINK_LIFETIME,
            warn=lambda delivered: wrong_count(delivered, task.images, poll.errors, at_most=at_most),
        )  # fmt: skip
        result = await context.writer.join(Manifest.succeed_all, delivery)
        if result.warning:
            self._flag(task, result.warning)
        context.record.stats.cost += result.cost
        note = result.note
        if note and note not in self._noted:
            # Reported once: thousands of tasks may have the same note.
            self._noted.add(note)
            context.control.emit(event(EventKind.WARNING, task, f"{note} (`status` counts these)"))
        return result.images

    async def _failed(self, task: TaskRecord, poll: Poll, move: Move, now: float) -> None:
        """Record a failed task; it is planned again while it has attempts left and the failure is not final."""
        context = self._context
        again = not move.final and task.failures + 1 < context.job.run.attempts
        retry_at = now + backoff(task.failures + 2, random=context.random) if again else None
        if again and is_dead_reference(move.code, move.why):
            await self._forget_uploads(task)
        await context.writer.do(
            Manifest.failed, task, why=move.why, code=move.code, retry_at=retry_at, now=now, cost=poll.cost or 0
        )
        context.record.stats.cost += poll.cost or 0
        if again:
            context.control.emit(event(EventKind.RETRY, task, f"failed ({move.why}); to be tried again"))
        else:
            context.record.stats.failed += 1
            context.control.emit(event(EventKind.FAILED, task, move.why, code=move.code))

    async def _forget_uploads(self, task: TaskRecord) -> None:
        """Forget the task's uploads, which the service could not fetch: the next attempt uploads them again."""
        context = self._context
        origin = context.service.origin
        for url in json.loads(task.body).get("image_urls", []):
            if url.startswith(REFERENCE):
                sha256 = url.removeprefix(REFERENCE)
                await context.writer.do(Manifest.forget_upload, sha256, origin)

    async def _fetch(self, task: TaskRecord, image: ImageRecord) -> bool:
        """Download one image until it is stored, given up or left for the next run; return whether it is stored.

        Raise `RunStopped` or `StorageError`.
        """
        context = self._context
        tries = bad = lasting = 0
        until: float | None = None
        while True:
            tries += 1
            host = host_of(image.url)
            await context.control.rest(self._paused_hosts.get(host, 0.0) - context.clock.monotonic())
            async with self._downloads:
                context.control.check()
                result = await self._try(task, image)
            if result.kind is Fetched.WHOLE:
                return await self._store(task, image, await self._better_download(task, image, result))
            self._breaker.failed(task.id, result.message)
            # A redirect to a forbidden address counts as bad too, though a captive portal may cause it for a while.
            bad += result.bad or result.kind is Fetched.REFUSED
            if bad == MOST_TRIES and result.stands_in and context.clock.unix() < (image.expires_at or 0.0):
                # The host may have the image later; as long as the link is valid, each run tries again.
                self._leave_for_next_run(task, image, result.message)
                return False
            if bad == MOST_TRIES:
                if self._breaker.open:
                    # A page in place of every image points to the network path, not to the images.
                    self._leave_for_next_run(task, image, result.message)
                else:
                    await self._give_up(task, image, ImageState.REJECTED, result.message)
                return False
            lasting += result.lasting
            now = context.clock.monotonic()
            until = now + TRYING if until is None else until
            wait = max(backoff(tries, random=context.random), result.retry_after)
            if result.retry_after:
                self._paused_hosts[host] = max(self._paused_hosts.get(host, 0.0), now + result.retry_after)
            hopeless = context.control.reason is StopReason.DOWNLOADS or lasting >= MOST_TRIES or now + wait > until
            fresh = await self._next_try(task, image, result, tries, 0.0 if hopeless else wait)
            if fresh is None:
                return False
            image = fresh
            if hopeless:
                self._leave_for_next_run(task, image, result.message)
                return False

    async def _better_download(self, task: TaskRecord, image: ImageRecord, result: _DownloadResult) -> _DownloadResult:
        """Return the download, or a better one if it is not what was requested and repeating it helps.

        Repeating is free. The first image is kept meanwhile, since its link may work only once.
        """
        if self._useless_repeats >= MOST_IN_VAIN or not await self._why_flagged(task, image, result):
            return result
        context = self._context
        try:
            for tries in range(1, MORE_TRIES + 1):
                await context.control.rest(backoff(tries, random=context.random))
                link = await self._fresh_link(task, image) if tries > 1 else None
                async with self._downloads:
                    repeat = await self._try(task, image if link is None else replace(image, url=link.url))
                if repeat.temp_path is None:
                    continue
                if not await self._why_flagged(task, image, repeat):
                    self._useless_repeats = -MOST_IN_VAIN
                    result, repeat = repeat, result
                if repeat.temp_path is not None:
                    await asyncio.to_thread(context.folder.discard, repeat.temp_path)
                if self._useless_repeats < 0:
                    return result
        except RunStopped:
            return result
        except BaseException:
            if result.temp_path is not None:
                context.folder.discard(result.temp_path)
            raise
        self._useless_repeats += 1
        return result

    async def _why_flagged(self, task: TaskRecord, image: ImageRecord, result: _DownloadResult) -> str:
        """Return why a complete image is not what was requested; empty if it is, as far as can be told."""
        file = result.file
        if file is None:
            raise AssertionError("a whole download has a file")
        twin = await self._context.writer.join(Manifest.twins, (image, file.sha256), reads=True)
        return f"{SAME_BYTES}{twin.path}" if twin is not None else self._not_as_requested(task, file)

    def _not_as_requested(self, task: TaskRecord, file: StoredFile) -> str:
        references = []
        if task.size == "auto":
            known = self._context.references
            urls = [str(url).removeprefix(REFERENCE) for url in json.loads(task.body).get("image_urls", [])]
            references = [(known[url].width, known[url].height) for url in urls if url in known]
            if len(references) < len(urls):
                # The ratio may follow a reference whose size is not known.
                references = []
        return wrong_picture(task.size, task.resolution, file.width, file.height, references)

    async def _fresh_link(self, task: TaskRecord, image: ImageRecord) -> ImageUrl | None:
        """Return the image's current link, if the service lists as many links as it delivered images.

        Links are matched by position only: a list of another length cannot be matched.
        """
        poll = await self.look(task, self._context.clock.unix() - (task.submitted_at or 0.0))
        known = await self._context.writer.do(Manifest.delivered, task.id)
        return poll.images[image.index - 1] if len(poll.images) == known >= image.index else None

    async def _next_try(
        self, task: TaskRecord, image: ImageRecord, result: _DownloadResult, tries: int, wait: float
    ) -> ImageRecord | None:
        """Return the image to try next, with a fresh URL if there is one; None when nothing is left to try."""
        context = self._context
        url, expires = None, None
        if result.kind is not Fetched.BROKEN or tries > 1:
            # The link is dead or yields no valid image: another poll, which is free, may return fresh links.
            poll = await self.look(task, context.clock.unix() - (task.submitted_at or 0.0))
            if poll.kind is Polled.FAILED:
                text = "reported as failed after it was completed; the first word counts"
                context.control.emit(event(EventKind.WARNING, task, text))
            # Links are matched by position only: a list of another length cannot be matched.
            known = await context.writer.do(Manifest.delivered, task.id)
            fresh = poll.images[image.index - 1] if len(poll.images) == known >= image.index else None
            if fresh is not None:
                url, expires = fresh.url, fresh.expires_at
            elif result.kind is Fetched.GONE and poll.kind in {Polled.COMPLETED, Polled.FAILED, Polled.NOT_FOUND}:
                await self._without_link(task, image, result)
                return None
            if result.kind is Fetched.GONE and url == image.url and tries > 2:
                await self._without_link(task, image, result)
                return None
        await context.control.rest(wait)
        return await context.writer.do(
            Manifest.try_again, image, why=result.message, url=url, expires_at=expires, now=context.clock.unix()
        )

    async def _without_link(self, task: TaskRecord, image: ImageRecord, result: _DownloadResult) -> None:
        """Give up an image whose link is dead and has no replacement, but only once the link has expired."""
        why = f"the link is dead ({result.message}) and no other could be had"
        if self._context.clock.unix() >= (image.expires_at or 0.0):
            await self._give_up(task, image, ImageState.EXPIRED, why)
        else:
            self._leave_for_next_run(task, image, why, dead=True)

    def _leave_for_next_run(self, task: TaskRecord, image: ImageRecord, why: str, *, dead: bool = False) -> None:
        """Leave an image announced for the next run; `dead` if it has nothing but a dead link."""
        self._breaker.left(task.id, why, dead=dead)
        self._context.record.stats.trouble += 1
        self._context.control.emit(
            event(EventKind.WARNING, task, f"image {image.index} could not be fetched now: {why}")
        )

    async def _give_up(self, task: TaskRecord, image: ImageRecord, state: ImageState, why: str) -> None:
        context = self._context
        await context.writer.do(Manifest.move_image, image, state, why, context.clock.unix())
        context.record.stats.trouble += 1
        if state is ImageState.REJECTED:
            self._breaker.left(task.id, why, dead=True)
        kind = EventKind.EXPIRED if state is ImageState.EXPIRED else EventKind.REJECTED
        context.control.emit(event(kind, task, f"image {image.index}: {why}"))

    async def _try(self, task: TaskRecord, image: ImageRecord) -> _DownloadResult:
        """Download an image once into a temp file beside its path, sync it and validate it."""
        folder = self._context.folder
        stem = image_path(task.paths, task.images, image.index, task.fingerprint)
        # Only creating a folder is slow enough to need a thread.
        path = folder.new_part(stem) if folder.knows(stem) else await asyncio.to_thread(folder.new_part, stem)
        picture: Picture | None = None
        wrong: BadPicture | OSError | None = None
        with writing(path) as temp_file:
            writer = DownloadWriter(temp_file)
            download = await self._context.control.free(self._images.fetch(image.url, writer.take))
            await writer.settle()
            if download.kind is Fetched.WHOLE:
                picture, wrong = await asyncio.to_thread(_finish, writer, temp_file)
            elif download.kind is Fetched.BROKEN and 0 < download.bytes <= MAX_IMAGE:
                picture = await asyncio.to_thread(_complete_after_all, writer, temp_file)
        if download.kind is not Fetched.WHOLE and picture is None:
            if temp_file.made:
                await asyncio.to_thread(folder.discard, path)
            retry_after = download.retry_after or 0.0
            return _DownloadResult(download.kind, download.message, lasting=download.lasting, retry_after=retry_after)
        if picture is None:
            await asyncio.to_thread(folder.discard, path)
            return _DownloadResult(Fetched.BROKEN, f"the downloaded file {wrong}", bad=isinstance(wrong, BadPicture))
        if is_placeholder(picture.width, picture.height):
            await asyncio.to_thread(folder.discard, path)
            text = f"the host gave a placeholder of {picture.width} x {picture.height} pixels"
            return _DownloadResult(Fetched.BROKEN, text, bad=True, stands_in=True)
        file = StoredFile(temp_file.bytes, temp_file.sha256, picture.width, picture.height, picture.format)
        return _DownloadResult(Fetched.WHOLE, temp_path=path, file=file, picture=picture)

    async def _store(self, task: TaskRecord, image: ImageRecord, result: _DownloadResult) -> bool:
        """Give the verified file its final name: record path and hash, rename, record that it is stored.

        That order makes a crash in between recoverable by the hash. Return whether it is stored.
        """
        context = self._context
        temp_path, file, picture = result.temp_path, result.file, result.picture
        if temp_path is None or file is None or picture is None:
            raise AssertionError("a whole download has a file")
        path = ""
        try:
            path = await assign_place(context, task, image, file, picture.extension)
            await self._place(temp_path, path, file.sha256)
        except StorageError as error:
            await asyncio.to_thread(context.folder.discard, temp_path)
            if not isinstance(error, Occupied):
                raise
            if path != "" and await asyncio.to_thread(_is_stored, context.folder, path, file.sha256):
                # A run that stopped at once had given it its name already.
                await self._stored(task, image, file)
                return True
            context.record.stats.trouble += 1
            context.control.stop_submitting(StopReason.STORAGE, str(error))
            return False
        await self._stored(task, image, file)
        return True

    async def _place(self, temp_path: Path, path: str, sha256: str) -> None:
        """Give a file its final name; an earlier image of the job is moved aside.

        Raise `Occupied` or `StorageError`.
        """
        folder = self._context.folder
        try:
            await self._placer.place(temp_path, path)
        except Occupied:
            same = await asyncio.to_thread(folder.sha256, path) == sha256
            if same or not await step_aside_earlier(self._context, path):
                raise
            await self._placer.place(temp_path, path)

    async def adopt(self, task: TaskRecord) -> None:
        """Record files as stored that a killed run had already given their final names. Raise `StorageError`."""
        for image in await self._context.writer.do(Manifest.images, task.id):
            if image.state is ImageState.ANNOUNCED:
                await self._adopt(task, image)

    async def _stored(self, task: TaskRecord, image: ImageRecord, file: StoredFile) -> None:
        context = self._context
        why = f"{file.width} x {file.height} {file.format}, {file.bytes} bytes"
        doubt = self._not_as_requested(task, file)
        storing = Storing(image, file, why, doubt, context.clock.unix())
        warning = await context.writer.join(Manifest.store_all, storing)
        context.record.stats.stored += 1
        self._breaker.stored()
        context.record.stats.stored_bytes += file.bytes
        context.control.emit(event(EventKind.STORED, task, why, index=image.index))
        if warning:
            self._flag(task, f"image {image.index}: {warning}")

    def _flag(self, task: TaskRecord, warning: str) -> None:
        """Report a result that is not what was requested."""
        self._context.record.stats.flagged += 1
        self._context.control.emit(event(EventKind.FLAGGED, task, warning))

    async def _adopt(self, task: TaskRecord, image: ImageRecord) -> None:
        if image.path is None or image.sha256 is None:
            return
        if not await asyncio.to_thread(_is_stored, self._context.folder, image.path, image.sha256):
            return
        if await self._context.writer.do(Manifest.owner, image.path or ""):
            # Another image with the same bytes owns the path.
            return
        file = StoredFile(image.bytes or 0, image.sha256, image.width or 0, image.height or 0, image.format or "")
        await self._stored(task, image, file)


def _least(task: TaskRecord) -> int:
    """Return how many images a completed task must have before that is believed without another poll."""
    return 1 if leaves_count_open(json.loads(task.body)) else task.images


def _is_stored(folder: Destination, path: str, sha256: str) -> bool:
    """Return whether the file that a run gave this name is there; its name is durable then.

    The run may have been killed before it synced the folder.
    """
    if folder.sha256(path) != sha256:
        return False
    folder.sync([path])
    return True


def _finish(writer: DownloadWriter, temp_file: TempFile) -> tuple[Picture | None, BadPicture | OSError | None]:
    """Write and sync a complete download, then validate it: return the image, or why it is invalid.

    An image that a proxy compressed is decompressed first.
    """
    writer.finish()
    try:
        return inspect(temp_file.path), None
    except OSError as error:
        return None, error
    except BadPicture as error:
        plain = uncompressed(temp_file.path.read_bytes(), MAX_IMAGE)
        try:
            picture = None if plain is None else inspect(plain)
        except BadPicture:
            picture = None
        if plain is None or picture is None:
            return None, error
        temp_file.replace(plain)
        return picture, None


def _complete_after_all(writer: DownloadWriter, temp_file: TempFile) -> Picture | None:
    """Return the image if a download that was cut off by the rules of HTTP brought all of it; else None.

    Some hosts announce a few bytes more than there are.
    """
    writer.finish()
    try:
        data = temp_file.path.read_bytes()
        return inspect(data) if has_end(data) else None
    except (OSError, BadPicture):
        return None


def _outage(tasks: int, last: Series) -> str:
    """Return why a run ends when all tasks get the same odd answer."""
    if last.what == Polled.NOT_FOUND:
        text = f"the service knows none of the {tasks} tasks that were polled"
    else:
        text = f"all {tasks} tasks that were polled are said to be completed, without an image"
    return (
        f"{text}: perhaps the key is of another account, the address leads to another service, or it lost its data."
        " Nothing was changed. If they are lost for good: `resolve --lost`"
    )
