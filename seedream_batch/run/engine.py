"""The order of work: what expires first, then what is in flight, then new submissions; never more than fits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import PurePosixPath

from seedream_batch.errors import CredentialsRefused, ServiceError, StorageError
from seedream_batch.model.task import TaskRecord, TaskState, image_path
from seedream_batch.run.arrange import move_files
from seedream_batch.run.collect import Collector
from seedream_batch.run.context import Context, Event, EventKind, Stopping, StopReason, dollars
from seedream_batch.run.submit import Submitter

LARGEST_IMAGE = 16 * 10**6
"""Bytes that a 4K image of the service has at most."""


class Engine:
    """Drives one run. Every task in flight, from its submission to its last file, has one of a bounded number of slots.

    So a slow disk holds up downloads, those hold their slots, and nothing new is bought until one is free.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._submitter = Submitter(context)
        self._collector = Collector(context)
        self._slots = asyncio.Semaphore(context.job.run.max_in_flight)
        self._working: dict[int, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._failure: Exception | None = None

    async def run(self) -> None:
        """Works until nothing is left to do or the run is to end. Raises the first unexpected error."""
        context = self._context
        context.heard = context.monotonic()
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                await self._feed()
            except Stopping:
                pass
            except Exception as error:  # noqa: BLE001 - raised again below
                self._fail(error)
        if self._failure is not None:
            raise self._failure

    def _fail(self, error: Exception) -> None:
        """Keeps the first error and ends the run: nothing new, but what is in the air is still answered and recorded.

        Raised at once, it would cancel submissions that are sent already, and their task ids would be lost.
        """
        if self._failure is None:
            self._failure = error
        storage = isinstance(error, StorageError)
        self._context.end(StopReason.STORAGE if storage else StopReason.FAULT, str(error) or type(error).__name__)

    async def _feed(self) -> None:
        context = self._context
        await context.writer.do(lambda m: m.recover(context.clock()))
        await self._sweep()
        await move_files(context)
        if not context.options.submit_only:
            await self._collect_first()
        if context.options.resend and not context.options.collect:
            for task in await context.writer.do(lambda m: m.tasks(TaskState.UNCERTAIN)):
                if not task.held:
                    await self._start(task.id, self._resend(task))
        if not context.options.collect:
            await self._submit_all()

    async def _sweep(self) -> None:
        context = self._context
        folders = {""}
        for image in await context.writer.do(lambda m: m.announced()):
            task = await context.writer.do(lambda m, number=image.task: m.task(number))  # type: ignore[misc]
            parent = str(PurePosixPath(image_path(task.paths, task.images, image.index)).parent)
            folders.add("" if parent == "." else parent)
        await asyncio.to_thread(context.folder.sweep, folders)

    async def _collect_first(self) -> None:
        """Everything that is paid for already: links that expire, the soonest first, then tasks at work."""
        context = self._context
        seen: set[int] = set()
        for image in await context.writer.do(lambda m: m.announced()):
            if image.task not in seen:
                seen.add(image.task)
                task = await context.writer.do(lambda m, number=image.task: m.task(number))  # type: ignore[misc]
                await self._start(task.id, self._collector.fetch_all(task))
        for task in await context.writer.do(lambda m: m.tasks(TaskState.ACCEPTED)):
            await self._start(task.id, self._follow(task, at_once=True))

    async def _submit_all(self) -> None:
        context = self._context
        limit = context.options.limit
        await self._look_before_buying()
        begun: set[int] = set()
        while context.may_submit():
            if context.over_budget and not await self._budget_may_free():
                return
            # At the limit nothing new is begun, but what was begun and may be sent again is finished.
            only = begun if limit is not None and len(begun) >= limit else None
            now = context.clock()
            # Planned tasks that are on their way to their claim still look planned; ask for enough to see past them.
            most = len(self._working) + 16
            tasks = await context.writer.do(lambda m: m.due(most, now, only))  # noqa: B023 - awaited here
            fresh = [task for task in tasks if task.id not in self._working]
            if not fresh and not await self._wait_for_more(now, only):
                return
            for task in fresh[: None if limit is None or only is not None else limit - len(begun)]:
                await self._take_slot()
                try:
                    await self._submitter.wait_for_turn()
                except BaseException:
                    self._slots.release()
                    raise
                if not context.may_submit() or context.over_budget or not self._room_for(task):
                    self._submitter.give_up_turn()
                    self._slots.release()
                    break
                begun.add(task.id)
                self._spawn(task.id, self._make(task))

    async def _look_before_buying(self) -> None:
        """Whether there is room for what is bought, and money for it."""
        context = self._context
        images, cost = await context.writer.do(lambda m: m.planned_cost(context.options.limit))
        if images:
            await asyncio.to_thread(context.rescue.prepare)
            await self._look_at_balance(images, cost)

    def _room_for(self, task: TaskRecord) -> bool:
        """Whether the disk has room for all in flight and this task: what cannot be kept is not bought."""
        context = self._context
        needed = LARGEST_IMAGE * (len(self._working) + task.images)
        free = context.folder.free_bytes()
        if free < needed:
            room = f"{context.folder.root} has {free // 10**6:,} MB left"
            text = f"{room}; what is in flight may need {needed // 10**6:,} MB"
            context.stop_submitting(StopReason.STORAGE, text)
        return free >= needed

    async def _look_at_balance(self, images: int, cost: int) -> None:
        """Asks what the account has before anything is bought: free of charge, and it finds a bad key, too."""
        context = self._context
        try:
            balance = await context.service.balance()
        except CredentialsRefused as error:
            context.stop_submitting(StopReason.CREDENTIALS, f"the service refuses the API key ({error})")
            return
        except ServiceError as error:
            # Not every account may ask; a submission tells all that matters.
            context.emit(Event(EventKind.WARNING, f"the balance is not known: {error}"))
            return
        left = balance.remaining
        if left is None or left >= cost:
            return
        enough = max(0, left) * images // cost
        text = f"the account has {dollars(left)}; the {images:,} images to buy cost about {dollars(cost)}"
        if not enough:
            context.stop_submitting(StopReason.BALANCE, text)
        else:
            context.emit(Event(EventKind.WARNING, f"{text}: it will do for about {enough:,} of them"))

    async def _budget_may_free(self) -> bool:
        """Waits until something in flight ends and settles its cost; False, for good, when nothing is in flight."""
        context = self._context
        if not self._working:
            context.stop_submitting(StopReason.BUDGET, f"the next task would pass {context.over_budget}")
            return False
        self._changed.clear()
        await context.until(self._changed.wait())
        context.over_budget = ""
        return True

    async def _wait_for_more(self, now: float, only: set[int] | None) -> bool:
        """Waits until a task may be sent; whether there is any hope of that. `only` these count, if given."""
        context = self._context
        due = await context.writer.do(lambda m: m.next_due(only))
        if due is not None and due > now:
            self._changed.clear()
            if self._working:
                await self._either(due - now)
            else:
                await context.rest(due - now)
            return True
        if not self._working:
            return due is not None
        self._changed.clear()
        await context.until(self._changed.wait())
        return True

    async def _either(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._context.until(self._changed.wait())
        except TimeoutError:
            return

    async def _take_slot(self) -> None:
        if self._slots.locked():
            await self._context.until(self._slots.acquire())
        else:
            self._context.check()
            await self._slots.acquire()

    async def _start(self, number: int, work: Coroutine[object, object, None]) -> None:
        try:
            await self._take_slot()
        except BaseException:
            work.close()
            raise
        self._spawn(number, work)

    def _spawn(self, number: int, work: Coroutine[object, object, None]) -> None:
        """Starts work on a task in the slot that was just taken."""
        self._working[number] = self._group.create_task(self._in_slot(number, work))
        self._context.stats.in_flight = len(self._working)

    async def _in_slot(self, number: int, work: Coroutine[object, object, None]) -> None:
        try:
            await work
        except Stopping:
            pass
        except Exception as error:  # noqa: BLE001 - raised again at the end of the run
            self._fail(error)
        finally:
            self._slots.release()
            self._working.pop(number, None)
            self._context.stats.in_flight = len(self._working)
            self._changed.set()

    async def _make(self, task: TaskRecord) -> None:
        accepted = await self._submitter.submit(task)
        if accepted is not None and not self._context.options.submit_only:
            await self._follow(accepted, at_once=False)

    async def _resend(self, task: TaskRecord) -> None:
        accepted = await self._submitter.resend(task)
        if accepted is not None and not self._context.options.submit_only:
            await self._follow(accepted, at_once=False)

    async def _follow(self, task: TaskRecord, *, at_once: bool) -> None:
        ended = await self._collector.poll_to_end(task, at_once=at_once)
        if ended.state is TaskState.SUCCEEDED:
            await self._collector.fetch_all(ended)
