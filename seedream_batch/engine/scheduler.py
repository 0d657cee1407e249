"""Schedule the work of a run: expiring links first, then tasks in flight, then new submissions, within all limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence

from seedream_batch.client.error_details import LONGEST_WAIT
from seedream_batch.client.images import ImageClient
from seedream_batch.engine.circuit_breaker import Breaker
from seedream_batch.engine.collector import Collector
from seedream_batch.engine.context import RunContext
from seedream_batch.engine.events import Recheck, StopReason
from seedream_batch.engine.placement import blocking, move_files
from seedream_batch.engine.price_guard import check_balance
from seedream_batch.engine.stop_control import RunStopped, Signal
from seedream_batch.engine.submitter import Submitter
from seedream_batch.engine.verifier import verify
from seedream_batch.engine.workers.heartbeat import BEAT, WorkerLease
from seedream_batch.errors import StorageError
from seedream_batch.manifest import Manifest
from seedream_batch.manifest.rescue_log import orphaned_logs
from seedream_batch.model.task import KNOWN_FOR, TaskRecord, TaskState

AHEAD = 64
"""Planned tasks read per query."""

AHEAD_OF_OTHERS = 16
"""Planned tasks that a worker reserves per query on a shared manifest."""

MOST_LOST = 1000
"""Lost tasks polled per run; of more, a random sample, so that later runs reach the others."""

LARGEST_IMAGE = 16 * 10**6
"""Bytes of the largest 4K image of the service."""


class Scheduler:
    """Schedules one run, within its limits.

    Every task in flight, from its submission to its last file, holds one of `max_in_flight` slots. So a slow disk
    delays downloads, these hold their slots, and nothing new is bought until a slot is free.
    """

    def __init__(self, context: RunContext, images: ImageClient) -> None:
        self._context = context
        self._changed = Signal()
        self._submitter = Submitter(context)
        self._breaker = Breaker(self._changed.set)
        self._collector = Collector(context, images, self._breaker)
        self._working: dict[int, asyncio.Task[None]] = {}
        """The work on each task in flight, by task number."""
        self._images = 0
        """Images that the tasks in flight may yield."""
        self._sending: set[int] = set()
        """Tasks in flight that the manifest may still list as planned."""
        self._occupied: dict[int, str] = {}
        """Tasks that cannot be bought because an unknown file has their path, with that path."""
        self._polled_lost: set[int] = set()
        """Lost tasks that this run has polled, or started to poll."""
        self._due_by = 0.0
        """Unix time by which tasks count as due in the next query, even if the clock shows an earlier time."""
        self._failure: Exception | None = None

    async def run(self) -> None:
        """Work until nothing is left to do or the run ends.

        Raise the first unexpected error once all outstanding work has ended.
        """
        heartbeats = (
            None
            if self._context.coordination.lease is None
            else asyncio.create_task(self._send_heartbeats(self._context.coordination.lease))
        )
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                try:
                    await self._feed()
                except RunStopped:
                    pass
                except Exception as error:  # noqa: BLE001 - raised again below
                    self._fail(error)
        finally:
            if heartbeats is not None:
                heartbeats.cancel()
        if self._failure is not None:
            raise self._failure

    async def _send_heartbeats(self, worker: WorkerLease) -> None:
        """Send heartbeats until the run has ended, also while requests are outstanding."""
        try:
            while True:
                await asyncio.sleep(BEAT)
                await worker.send_heartbeat()
        except Exception as error:  # noqa: BLE001 - raised again at the end of the run
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Keep the first error and stop the run; outstanding requests still complete and are recorded.

        Raised at once, it would cancel submissions already sent, and their task ids would be lost.
        """
        if self._failure is None:
            self._failure = error
            self._context.control.warn(f"an error ends the run: {error or type(error).__name__}")
        storage = isinstance(error, StorageError)
        self._context.control.end(
            StopReason.STORAGE if storage else StopReason.FAULT, str(error) or type(error).__name__
        )

    async def _feed(self) -> None:
        context = self._context
        worker = context.coordination.lease
        if worker is not None:
            await worker.send_heartbeat()
        if context.start.alone:
            await context.writer.do(Manifest.recover, context.clock.unix())
            if context.start.cut_off:
                await asyncio.to_thread(context.folder.sweep)
                await context.writer.do(Manifest.swept)
            await self._adopt()
            if context.options.recheck is not None:
                await self._recheck()
                return
            if context.options.verify is not None:
                await verify(context, self._collector, context.options.verify, self._start)
                if context.options.verify.ask:
                    await self._find_lost()
                return
            await move_files(context)
            if worker is not None:
                await context.writer.do(Manifest.unlock_startup)
        if context.options.recheck is not None:
            await self._recheck()
            return
        while True:
            await self._continue()
            if not context.options.collect:
                await self._submit_all()
            if worker is None or not await self._wait_for_others(worker):
                return

    async def _adopt(self) -> None:
        """Record files that a killed run had given their final names, before anything is moved or downloaded."""
        numbers = await self._context.writer.do(Manifest.to_fetch)
        for start in range(0, len(numbers), AHEAD):
            page = numbers[start : start + AHEAD]
            for task in await self._context.writer.do(Manifest.records, page):
                await self._collector.adopt(task)

    async def _continue(self) -> None:
        """Continue everything that was submitted and that no other worker owns."""
        context = self._context
        if not context.options.submit_only:
            await self._collect_first()
        if context.options.resend and not context.options.collect:
            async for task in self._owned(await context.writer.do(Manifest.numbers, TaskState.UNCERTAIN)):
                only = context.options.resend_only
                chosen = await context.writer.do(Manifest.is_chosen, task)
                waits = task.state is TaskState.UNCERTAIN and not task.held
                if chosen and waits and context.control.may_submit() and (only is None or task.id in only):
                    await self._start(task, self._resend_and_follow(task))

    async def _collect_first(self) -> None:
        """Collect what is already paid for: images whose links expire soonest first, then running tasks."""
        to_fetch = await self._context.writer.do(Manifest.to_fetch)
        async for task in self._owned(to_fetch):
            # Only the tasks that this worker owns.
            self._breaker.carries([task.id])
            if not self._context.start.alone:
                await self._collector.adopt(task)
            await self._start(task, self._collector.fetch_all(task))
        async for task in self._owned(await self._context.writer.do(Manifest.numbers, TaskState.ACCEPTED)):
            if task.state is TaskState.ACCEPTED:
                await self._start(task, self._follow(task, at_once=True))
        await self._find_lost()

    async def _recheck(self) -> None:
        """Poll the selected tasks of one kind, before the user decides whether to pay for them again."""
        context = self._context
        if context.options.recheck is Recheck.LOST:
            await self._find_lost()
            return
        since = context.clock.unix() - KNOWN_FOR
        async for task in self._owned(await context.writer.do(Manifest.short_of_images, since)):
            await self._start(task, self._collector.complete(task))

    async def _find_lost(self) -> None:
        """Poll lost tasks, each once per run: that is free, and may find what was paid for."""
        context = self._context
        since = context.clock.unix() - KNOWN_FOR
        known = self._polled_lost
        lost = [number for number in await context.writer.do(Manifest.lost_ids, since) if number not in known]
        room = MOST_LOST - len(known)
        if len(lost) > room and context.options.recheck is None:
            lost = sorted(context.random.sample(lost, max(room, 0)))
        known.update(lost)
        follow = context.options.recheck is None and context.options.verify is None
        async for task in self._owned(lost):
            chosen = context.options.recheck is None or await context.writer.do(Manifest.is_chosen, task)
            if chosen and task.state is TaskState.LOST:
                await self._start(task, self._poll_lost(task, follow=follow))

    async def _poll_lost(self, task: TaskRecord, *, follow: bool) -> None:
        await self._collector.fetch(task, await self._collector.find_again(task, follow=follow))

    async def _owned(self, numbers: Sequence[int]) -> AsyncIterator[TaskRecord]:
        """Take ownership of these tasks and yield their current records, page by page: there may be a million.

        None of them may be in flight yet. A worker takes no more than it can start at once.
        """
        worker = self._context.coordination.lease
        if worker is not None:
            numbers = [number for number in numbers if number not in worker.left_behind]
        start = 0
        while start < len(numbers):
            page = numbers[start : start + self._page_size()]
            start += len(page)
            for task in await self._context.writer.do(Manifest.own_tasks, page):
                yield task

    def _page_size(self) -> int:
        """Return how many tasks to read per query; no other worker can start the tasks that this one owns."""
        if self._context.coordination.lease is None:
            return AHEAD
        return min(AHEAD_OF_OTHERS, max(1, self._context.job.run.max_in_flight - len(self._working)))

    async def _wait_for_others(self, worker: WorkerLease) -> bool:
        """Wait for work that other workers leave, with nothing left to do here; return whether there is any."""
        context = self._context
        options = context.options
        # After a stop, and with --collect, tasks may still be in flight.
        working = list(self._working)
        worker.left_behind |= await context.writer.do(Manifest.release_tasks, working)
        while context.control.may_submit() and not (
            options.collect or options.submit_only or options.limit is not None
        ):
            await self._import_rescued(worker)
            known = worker.left_behind | self._occupied.keys()
            resend = bool(options.resend)
            if await context.writer.do(Manifest.left_to_do, known, resend=resend):
                return True
            if not await context.writer.do(Manifest.others_have) and not worker.left_something:
                break
            worker.heard.clear()
            await context.control.until(worker.heard, BEAT)
        return False

    async def _take_over(self) -> None:
        """Take over tasks of dead workers before buying new ones; checked after each heartbeat."""
        worker = self._context.coordination.lease
        if worker is None or not worker.heard.is_set:
            return
        worker.heard.clear()
        await self._import_rescued(worker)
        await self._continue()

    async def _import_rescued(self, worker: WorkerLease) -> None:
        """Import task ids that a dead worker could not store, so that fewer tasks become uncertain."""
        context = self._context
        if not (worker.left_something or worker.still_written):
            return
        worker.left_something = False
        job, timeout = context.job, context.job.run.task_timeout
        at_work = await context.writer.do(Manifest.at_work)
        with orphaned_logs(job.output_dir, context.writer.manifest.id, at_work=at_work) as left:
            worker.still_written = left.held
            for file in left.files:
                rescued = file.rescued
                known = await context.writer.do(Manifest.import_ids, rescued, context.clock.unix(), timeout=timeout)
                file.imported(known)

    async def _submit_all(self) -> None:
        context = self._context
        limit = context.options.limit
        images, cost = await context.writer.do(Manifest.planned_cost, limit)
        if images:
            await check_balance(context, images, cost)
        begun: set[int] = set()
        while context.control.may_submit():
            await self._take_over()
            # At the limit no new task is started, but started ones that may be sent again are finished.
            only = begun if limit is not None and len(begun) >= limit else None
            now, self._due_by = max(context.clock.unix(), self._due_by), 0.0
            # Tasks that are about to be claimed are still planned in the manifest; read enough to see past them.
            ahead = self._page_size() if limit is None or only is not None else limit - len(begun)
            most = len(self._sending) + len(self._occupied) + min(self._page_size(), ahead)
            tasks = await context.writer.read(Manifest.due, most, now, only)
            fresh = [task for task in tasks if task.id not in self._working and task.id not in self._occupied]
            if not fresh and not await self._wait_for_more(now, only):
                break
            for task in fresh[: None if limit is None or only is not None else limit - len(begun)]:
                if not await self._may_begin(task):
                    continue
                if limit is not None:
                    begun.add(task.id)
                self._sending.add(task.id)
                self._submitter.unclaimed.add(task.id)
                self._spawn(task.id, self._submit_and_follow(task), task.images)
        if self._occupied:
            paths = sorted(self._occupied.values())
            more = f" and {len(paths) - 1:,} more" if len(paths) > 1 else ""
            text = f"{context.folder.named(paths[0])}{more} exists already and was not made by this job; move it away"
            context.control.stop_submitting(StopReason.STORAGE, text)

    async def _may_begin(self, task: TaskRecord) -> bool:
        """Wait for a slot, disk space, budget and a turn; return whether the task may then be submitted."""
        context = self._context
        occupied = await blocking(context, task)
        if occupied:
            # Checked before it is paid for: the image could not be stored under its name.
            self._occupied[task.id] = occupied
            context.record.stats.trouble += 1
            return False
        while True:
            # Checked again after each wait: tasks taken over from others use slots and disk space as well.
            await self._take_slot()
            if not await self._wait_for_images():
                return False
            while not (room := self._room_for(task)) and len(self._working) > 0:
                await self._until_changed()
            if not room:
                context.control.stop_submitting(StopReason.STORAGE, self._disk_shortage(task))
            try:
                context.writer.manifest.check_in_place()
            except StorageError as error:
                # What is in flight is still collected.
                context.control.stop_submitting(StopReason.STORAGE, str(error))
            if self._submitter.blocked_by:
                if await self._wait_for_settlement():
                    self._submitter.blocked_by = ""
                    continue
                context.control.stop_submitting(
                    StopReason.BUDGET, f"the next task would pass {self._submitter.blocked_by}"
                )
            break
        if context.control.may_submit():
            await self._submitter.wait_for_turn()
            if context.control.may_submit() and not self._submitter.blocked_by:
                return True
            self._submitter.give_up_turn()
        return False

    async def _wait_for_images(self) -> bool:
        """Wait until images can be downloaded, as far as is known; return False if nothing more is to be bought."""
        context = self._context
        while not context.options.submit_only and not self._breaker.may_buy(len(self._working)):
            if self._breaker.verdict or not self._working:
                why = self._breaker.verdict or "no image could be fetched"
                context.control.stop_submitting(StopReason.DOWNLOADS, f"{why}; nothing more is bought until one can be")
            if not context.control.may_submit():
                return False
            await self._until_changed()
        return True

    async def _wait_for_settlement(self) -> bool:
        """Wait until a reservation may be settled or released; return whether there was anything to wait for."""
        while self._working:
            # A task without a claim has no reservation yet, and releases nothing if it gets none.
            held, claims = self._working.keys() - self._submitter.unclaimed, self._submitter.claims
            await self._until_changed()
            if held or self._submitter.claims != claims:
                return True
        worker = self._context.coordination.lease
        await self._take_over()
        if self._working:
            return True
        if worker is None or not await self._context.writer.do(Manifest.others_have, settling=True):
            return False
        await self._context.control.rest(1.0)
        return True

    async def _until_changed(self) -> None:
        """Wait until a task in flight has ended."""
        self._changed.clear()
        if self._working:
            await self._context.control.until(self._changed)

    def _room_for(self, task: TaskRecord) -> bool:
        """Return whether the disk has room for all in flight and this task: what cannot be stored is not bought."""
        return self._context.folder.free_bytes() >= self._needed(task)

    def _needed(self, task: TaskRecord) -> int:
        return LARGEST_IMAGE * (self._images + task.images)

    def _disk_shortage(self, task: TaskRecord) -> str:
        folder = self._context.folder
        room = f"{folder.spool} has {folder.free_bytes() // 10**6:,} MB left"
        return f"{room}; the next task may need {self._needed(task) // 10**6:,} MB"

    async def _wait_for_more(self, now: float, only: set[int] | None) -> bool:
        """Wait until a task may be submitted; return whether any can be expected. `only` limits it to these tasks."""
        context = self._context
        manifest = context.writer.manifest
        planned_again = manifest.planned_again
        due = await context.writer.read(Manifest.next_due, only)
        if due is not None and due > now + LONGEST_WAIT:
            # No pause is that long: the clock was set back.
            self._due_by = due
            return True
        if due is not None and due > now:
            self._changed.clear()
            wait = due - now if context.coordination.lease is None else min(due - now, BEAT)
            if self._working:
                await context.control.until(self._changed, wait)
            else:
                await context.control.rest(wait)
            return True
        if not self._working:
            # A due task that was not read is blocked by a file, or has just become due.
            return due is not None and not self._occupied
        if context.coordination.lease is not None:
            self._changed.clear()
            await context.control.until(self._changed, BEAT)
            return True
        await self._until_changed()
        while due is None and self._working and manifest.planned_again == planned_again:
            # Nothing is planned, so there is nothing to read.
            await self._until_changed()
        return True

    async def _take_slot(self) -> None:
        """Wait until one more task may be in flight. Only the scheduler starts work, so nobody else takes the slot."""
        self._context.control.check()
        while len(self._working) >= self._context.job.run.max_in_flight:
            await self._until_changed()

    async def _start(self, task: TaskRecord, work: Coroutine[object, object, None]) -> None:
        try:
            await self._take_slot()
        except BaseException:
            work.close()
            raise
        self._spawn(task.id, work, task.images)

    def _spawn(self, number: int, work: Coroutine[object, object, None], images: int) -> None:
        """Start work on a task in the slot just taken."""
        self._working[number] = self._group.create_task(self._in_slot(number, work, images))
        self._images += images
        self._context.record.stats.in_flight = len(self._working)

    async def _in_slot(self, number: int, work: Coroutine[object, object, None], images: int) -> None:
        try:
            await work
        except RunStopped:
            pass
        except Exception as error:  # noqa: BLE001 - raised again at the end of the run
            self._fail(error)
        finally:
            self._working.pop(number, None)
            self._breaker.ended(number)
            self._images -= images
            self._context.record.stats.in_flight = len(self._working)
            self._changed.set()

    async def _submit_and_follow(self, task: TaskRecord) -> None:
        try:
            accepted = await self._submitter.submit(task)
        finally:
            self._sending.discard(task.id)
        if accepted is not None and not self._context.options.submit_only:
            await self._follow(accepted, at_once=False)

    async def _resend_and_follow(self, task: TaskRecord) -> None:
        accepted = await self._submitter.resend(task)
        if accepted is not None and not self._context.options.submit_only:
            await self._follow(accepted, at_once=False)

    async def _follow(self, task: TaskRecord, *, at_once: bool) -> None:
        await self._collector.fetch(task, await self._collector.poll_to_end(task, at_once=at_once))
