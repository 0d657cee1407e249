"""Collect the results of accepted tasks: poll until they end, and record what they delivered."""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import closing

from seedream_batch.delivery import in_place, leaves_count_open, wrong_count
from seedream_batch.engine.context import RunContext, event, flag
from seedream_batch.engine.downloader import Downloader
from seedream_batch.engine.events import EventKind, StopReason
from seedream_batch.engine.polls import PollHistory, look, notice
from seedream_batch.engine.stop_control import RunStopped, Signal
from seedream_batch.lifecycle import (
    LEAST_POLLS,
    Move,
    Outlook,
    Series,
    after_poll,
    backoff,
    makes_sense,
    poll_pause,
    richer,
    says_nothing,
    series,
    with_images,
)
from seedream_batch.manifest.task_store import Delivery
from seedream_batch.model.job import REFERENCE
from seedream_batch.model.outcome import Poll, Polled
from seedream_batch.model.service_messages import is_dead_reference
from seedream_batch.model.task import KNOWN_FOR, ImageRecord, TaskRecord, TaskState
from seedream_batch.pacing import TaskPoller

DEFAULT_LINK_LIFETIME = 24 * 3600.0
"""Seconds that a result link is valid when the service does not say [Seedream 4.5 API documentation]."""

MOST_LOST_POLLS = 5
"""Polls of a lost task per run."""

MOST_POLLS = 5
"""Polls of a finished task until one gives a clear answer."""

GRACE_AFTER_START = 60.0
"""Least seconds that a task of an earlier run is polled, even if its deadline has passed."""


class Collector:
    """Follows tasks from their task id to their images' links."""

    def __init__(self, context: RunContext, downloads: Downloader) -> None:
        self._context = context
        self._downloads = downloads
        self._noted: set[str] = set()
        """Notes about costs that were reported already."""
        self._durations_known: defaultdict[str, Signal] = defaultdict(Signal)
        """For each resolution, set once the duration of its tasks is known."""
        self._outlooks = {True: Outlook(), False: Outlook()}
        """Polls of several tasks taken together: True for tasks of earlier runs, False for tasks of this run."""

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
        history = PollHistory(_least(task))
        try:
            with closing(context.schedule.watch(task.resolution)) as watch:
                while True:
                    await self._until_due(watch, task.resolution, history, began - age_then, at_once=at_once)
                    age = age_then + context.clock.monotonic() - began
                    late = age - lifetime if age >= lifetime else None
                    poll = await look(context, task, age, overdue=late is not None)
                    await self._store_answer(task, poll, history)
                    now = context.clock.monotonic()
                    last = history.take(poll, age=age, late=late, now=now)
                    if history.pause or makes_sense(poll):
                        outlook.note(task.id, poll, last, now)
                    if poll.kind is Polled.RUNNING:
                        watch.looked(age)
                    await notice(context, poll)
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
                        text = f"no clear answer by its deadline: {poll.message or poll.kind}"
                        context.control.emit(event(EventKind.WARNING, task, text))
                        raise RunStopped
        finally:
            outlook.forget(task.id)

    async def _until_due(
        self, watch: TaskPoller, resolution: str, history: PollHistory, born: float, *, at_once: bool
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
        self, poll: Poll, history: PollHistory, outlook: Outlook, *, age: float, overdue: bool, asked: int
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
            move = Move(TaskState.LOST, f"no clear result {age:.0f} s after the service accepted it")
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
            poll = await look(context, task, context.clock.unix() - (task.submitted_at or 0.0), overdue=True)
            now = context.clock.monotonic()
            last, best = series(last, poll, now), richer(best, poll)
            await notice(context, poll)
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
        poll, move = with_images(poll, move or Move(TaskState.LOST, f"no clear result: {poll.kind}"), best)
        if move.to is TaskState.LOST:
            return []
        reopened = await self._accept_again(task, poll, max(deadline, task.deadline or 0.0))
        return await self._ended(reopened, poll, move, context.clock.unix())

    async def complete(self, task: TaskRecord) -> None:
        """Poll a task that completed with too few images, for free; fetch those that it has by now.

        Raise `RunStopped`.
        """
        context = self._context
        if await context.writer.do(context.manifest.tasks.is_of_other_account, task):
            # The service would answer this account that there is no such task.
            return
        poll = await self.clear_answer(task)
        if poll is not None:
            context.record.rechecks[task.id] = poll.kind
        if poll is None or poll.kind is not Polled.COMPLETED:
            return
        now = context.clock.unix()
        at_most = leaves_count_open(json.loads(task.body))

        manifest = context.manifest

        def add() -> tuple[int, int]:
            with manifest.group():
                known = [image.url for image in manifest.images.of_task(task.id)[: manifest.images.delivered(task.id)]]
                places = in_place([image.url for image in poll.images], known)
                images = [poll.images[place] for place in places]
                added, cost = manifest.tasks.delivered_more(
                    task, images, cost=poll.cost, now=now, default_expiry=now + DEFAULT_LINK_LIFETIME
                )
                if added:
                    delivered = len(manifest.images.of_task(task.id))
                    manifest.tasks.warn(task.id, wrong_count(delivered, task.images, poll.errors, at_most=at_most))
            return added, cost

        added, cost = await context.writer.do(add)
        if added:
            context.record.stats.added += added
            context.record.stats.cost += cost
            context.control.emit(event(EventKind.FOUND, task, f"{added:,} more image(s) delivered since it completed"))
        await self._downloads.fetch_all(task)

    async def clear_answer(self, task: TaskRecord) -> Poll | None:
        """Poll a finished task; return None if no answer was clear. A single odd answer is not believed."""
        context = self._context
        last: Series | None = None
        for polls in range(1, MOST_POLLS + 1):
            if not context.health.may_poll:
                return None
            poll = await look(context, task, context.clock.unix() - (task.submitted_at or 0.0))
            await notice(context, poll)
            last = series(last, poll, context.clock.monotonic())
            if poll.kind is Polled.COMPLETED:
                return poll
            if poll.kind in {Polled.FAILED, Polled.NOT_FOUND} and last.count >= LEAST_POLLS:
                return poll
            await context.control.rest(backoff(polls, random=context.random))
        return None

    async def _accept_again(self, task: TaskRecord, poll: Poll, deadline: float) -> TaskRecord:
        context = self._context
        why = f"found by polling again, for free: {poll.kind}"
        reopened = await context.writer.do(
            context.manifest.tasks.reopen, task, deadline=deadline, why=why, now=context.clock.unix()
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

    async def _store_answer(self, task: TaskRecord, poll: Poll, history: PollHistory) -> None:
        """Store an answer that was not fully understood, once, before anything else happens to the task."""
        if poll.kept is not None and poll.kept.why != history.kept:
            history.kept = poll.kept.why
            await self._context.writer.do(
                self._context.manifest.answers.record, task, poll.kept, self._context.clock.unix()
            )

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
                await self._context.writer.do(self._context.manifest.tasks.lost, task, why=move.why, now=now)
                self._context.record.stats.lost += 1
                self._context.control.emit(event(EventKind.LOST, task, move.why))
            case _:
                raise AssertionError(f"a poll does not lead to {move.to}")
        return []

    async def _succeeded(self, task: TaskRecord, poll: Poll, move: Move, now: float) -> list[ImageRecord]:
        context = self._context
        at_most = leaves_count_open(json.loads(task.body))
        delivery = Delivery(
            task, poll.images, poll.cost, move.why, now, now + DEFAULT_LINK_LIFETIME,
            warn=lambda delivered: wrong_count(delivered, task.images, poll.errors, at_most=at_most),
        )  # fmt: skip
        result = await context.writer.join(context.manifest.tasks.succeed_all, delivery)
        if result.warning:
            flag(context, task, result.warning)
        context.record.stats.cost += result.cost
        note = result.note
        if note and note not in self._noted:
            # Reported once: thousands of tasks may have the same note.
            self._noted.add(note)
            context.control.emit(event(EventKind.WARNING, task, f"{note} (see `status` for how many)"))
        return result.images

    async def _failed(self, task: TaskRecord, poll: Poll, move: Move, now: float) -> None:
        """Record a failed task; it is planned again while it has attempts left and the failure is not final."""
        context = self._context
        again = not move.final and task.failures + 1 < context.job.run.attempts
        retry_at = now + backoff(task.failures + 2, random=context.random) if again else None
        if again and is_dead_reference(move.code, move.why):
            await self._forget_uploads(task)
        await context.writer.do(
            context.manifest.tasks.failed,
            task,
            why=move.why,
            code=move.code,
            retry_at=retry_at,
            now=now,
            cost=poll.cost or 0,
        )
        context.record.stats.cost += poll.cost or 0
        if again:
            context.control.emit(event(EventKind.RETRY, task, f"failed, will be retried: {move.why}"))
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
                await context.writer.do(context.manifest.images.forget_upload, sha256, origin)


def _least(task: TaskRecord) -> int:
    """Return how many images a completed task must have before that is believed without another poll."""
    return 1 if leaves_count_open(json.loads(task.body)) else task.images


def _outage(tasks: int, last: Series) -> str:
    """Return why a run ends when all tasks get the same odd answer."""
    if last.what == Polled.NOT_FOUND:
        text = f"the service does not know any of the {tasks:,} tasks that were polled"
    else:
        text = f"the service reports all {tasks:,} tasks that were polled as completed, but without images"
    return (
        f"{text}. Check that the API key and APIMART_BASE_URL are those of the account that submitted them. Nothing was"
        " changed. If the service has lost them for good, use `resolve --lost`"
    )
