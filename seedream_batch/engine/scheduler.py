"""Buy planned tasks: within the limits of slots, disk, budget and rate, and after what is already paid for."""

from __future__ import annotations

from seedream_batch.client.error_details import LONGEST_WAIT
from seedream_batch.client.wire import Balance
from seedream_batch.engine.context import RunContext, dollars
from seedream_batch.engine.events import StopReason
from seedream_batch.engine.open_tasks import OpenTasks
from seedream_batch.engine.placement import blocking
from seedream_batch.engine.submitter import Submitter
from seedream_batch.engine.task_slots import TaskSlots
from seedream_batch.errors import AccessRefused, CredentialsRefused, NotReached, ServiceError, StorageError
from seedream_batch.lifecycle import backoff
from seedream_batch.model.task import TaskRecord
from seedream_batch.planning import manifest_lost

LARGEST_IMAGE = 16 * 10**6
"""Bytes of the largest 4K image of the service."""


class Scheduler:
    """Decides when which planned task is submitted."""

    def __init__(self, context: RunContext, slots: TaskSlots, submitter: Submitter, open_tasks: OpenTasks) -> None:
        self._context = context
        self._slots = slots
        self._submitter = submitter
        self._open_tasks = open_tasks
        self._sending: set[int] = set()
        """Tasks in flight that the manifest may still list as planned."""
        self._occupied: dict[int, str] = {}
        """Tasks that cannot be bought because an unknown file has their path, with that path."""
        self._knew_images = True
        """Whether the manifest had any image when the run began."""
        self._blocked_at = -1
        """How many tasks were claimed when one was tried with nothing else in flight, after the budget blocked one."""
        self._due_by = 0.0
        """Unix time by which tasks count as due in the next query, even if the clock shows an earlier time."""

    async def run(self) -> None:
        """Continue what was submitted, then submit planned tasks, until nothing is left. Raise `RunStopped`."""
        context = self._context
        self._knew_images = await context.writer.do(context.manifest.images.exist)
        more = True
        while more:
            await self._open_tasks.resume()
            if not context.options.collect:
                await self._submit_all()
            working = list(self._slots.working)
            more = await context.coordinator.wait_for_others(context.options, working, self._occupied)

    async def _submit_all(self) -> None:
        context = self._context
        limit = context.options.limit
        images, cost = await context.writer.do(context.manifest.queue.planned_cost, limit)
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
            tasks = await context.writer.read(context.manifest.queue.due, most, now, only)
            fresh = [task for task in tasks if task.id not in self._slots.working and task.id not in self._occupied]
            if not fresh and not await self._wait_for_more(now, only):
                break
            for task in fresh[: None if limit is None or only is not None else limit - len(begun)]:
                if not await self._may_begin(task):
                    continue
                if limit is not None:
                    begun.add(task.id)
                self._sending.add(task.id)
                self._submitter.unclaimed.add(task.id)
                self._slots.spawn(task, self._submit_and_follow(task))
        if self._occupied:
            context.control.stop_submitting(StopReason.STORAGE, await self._describe_occupied())

    async def _describe_occupied(self) -> str:
        """Return which files have the paths of images, and what to do."""
        context = self._context
        paths = sorted(self._occupied.values())
        several = len(paths) > 1
        what = context.folder.named(paths[0])
        what += f" and {len(paths) - 1:,} more already exist" if several else " already exists"
        if self._knew_images:
            return f"{what} and {'are' if several else 'is'} not from this job; move {'them' if several else 'it'} away"
        tasks = await context.writer.do(context.manifest.tasks.records, sorted(self._occupied))
        images, cost = sum(task.images for task in tasks), sum(task.images * task.price for task in tasks)
        return f"{what}, but {manifest_lost(context.job.manifest, images, dollars(cost))}"

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
            await self._slots.take()
            if not await self._wait_for_images():
                return False
            while not (room := self._room_for(task)) and len(self._slots.working) > 0:
                await self._slots.until_changed()
            if not room:
                context.control.stop_submitting(StopReason.STORAGE, self._disk_shortage(task))
            try:
                context.manifest.connection.check_in_place()
            except StorageError as error:
                # What is in flight is still collected.
                context.control.stop_submitting(StopReason.STORAGE, str(error))
            if context.coordinator.blocked_by:
                # What was in flight when the budget blocked a task may have ended since: try once more on its own.
                if await self._wait_for_settlement() or self._blocked_at != self._submitter.claims:
                    if not self._slots.working:
                        self._blocked_at = self._submitter.claims
                    context.coordinator.blocked_by = ""
                    continue
                context.control.stop_submitting(
                    StopReason.BUDGET, f"the next task would exceed {context.coordinator.blocked_by}"
                )
            break
        if context.control.may_submit():
            await self._submitter.wait_for_turn()
            if context.control.may_submit() and not context.coordinator.blocked_by:
                return True
            self._submitter.give_up_turn()
        return False

    async def _wait_for_images(self) -> bool:
        """Wait until images can be downloaded, as far as is known; return False if nothing more is to be bought."""
        context = self._context
        while not context.options.submit_only and not self._slots.breaker.may_buy(len(self._slots.working)):
            if self._slots.breaker.verdict or not self._slots.working:
                why = self._slots.breaker.verdict or "no image could be downloaded"
                context.control.stop_submitting(StopReason.DOWNLOADS, f"{why}; not submitting until downloads work")
            if not context.control.may_submit():
                return False
            await self._slots.until_changed()
        return True

    async def _wait_for_settlement(self) -> bool:
        """Wait until a reservation may be settled or released; return whether there was anything to wait for."""
        slots, submitter = self._slots, self._submitter
        while slots.working:
            # A task without a claim has no reservation yet, and releases nothing if it gets none.
            held, claims = slots.working.keys() - submitter.unclaimed, submitter.claims
            await slots.until_changed()
            if held or submitter.claims != claims:
                return True
        await self._take_over()
        return bool(slots.working) or await self._context.coordinator.others_may_settle()

    async def _take_over(self) -> None:
        """Take over tasks of dead workers before buying new ones; checked after each heartbeat."""
        if await self._context.coordinator.has_news():
            await self._open_tasks.resume()

    def _page_size(self) -> int:
        return self._context.coordinator.page_size(len(self._slots.working))

    def _room_for(self, task: TaskRecord) -> bool:
        """Return whether the disk has room for all in flight and this task: what cannot be stored is not bought."""
        return self._context.folder.free_bytes() >= self._needed(task)

    def _needed(self, task: TaskRecord) -> int:
        return LARGEST_IMAGE * (self._slots.images + task.images)

    def _disk_shortage(self, task: TaskRecord) -> str:
        folder = self._context.folder
        room = f"{folder.spool} has {folder.free_bytes() // 10**6:,} MB left"
        return f"{room}, but the next task may need {self._needed(task) // 10**6:,} MB; free some space"

    async def _wait_for_more(self, now: float, only: set[int] | None) -> bool:
        """Wait until a task may be submitted; return whether any can be expected. `only` limits it to these tasks."""
        context = self._context
        manifest = context.writer.manifest
        planned_again = manifest.tasks.times_planned
        due = await context.writer.read(context.manifest.queue.next_due, only)
        if due is not None and due > now + LONGEST_WAIT:
            # No pause is that long: the clock was set back.
            self._due_by = due
            return True
        if due is not None and due > now:
            self._slots.changed.clear()
            wait = context.coordinator.longest_wait(due - now)
            if self._slots.working:
                await context.control.until(self._slots.changed, wait)
            else:
                await context.control.rest(wait)
            return True
        if not self._slots.working:
            # A due task that was not read is blocked by a file, or has just become due.
            return due is not None and not self._occupied
        if await context.coordinator.wait_for_change(self._slots.changed):
            return True
        await self._slots.until_changed()
        while due is None and self._slots.working and manifest.tasks.times_planned == planned_again:
            # Nothing is planned, so there is nothing to read.
            await self._slots.until_changed()
        return True

    async def _submit_and_follow(self, task: TaskRecord) -> None:
        try:
            accepted = await self._submitter.submit(task)
        finally:
            self._sending.discard(task.id)
        if accepted is not None and not self._context.options.submit_only:
            await self._open_tasks.follow(accepted, at_once=False)


async def _balance(context: RunContext) -> Balance:
    """Return the balance; retry until the service is reached, since nothing can be bought before that either.

    Raise `RunStopped`, `CredentialsRefused` or `ServiceError`.
    """
    tries = 0
    while True:
        try:
            return await context.control.free(context.service.balance())
        except NotReached as error:
            context.health.unanswered(error.reason)
        tries += 1
        await context.control.rest(backoff(tries, random=context.random))


async def check_balance(context: RunContext, images: int, cost: int) -> None:
    """Check the balance before anything is bought; this is free and also detects a bad key. Raise `RunStopped`.

    `cost` in millionths of a USD. Stops submissions if the key is refused or not even one image is affordable; warns if
    not all are.
    """
    try:
        balance = await _balance(context)
    except ServiceError as error:
        if isinstance(error, CredentialsRefused) and not isinstance(error, AccessRefused):
            context.control.stop_submitting(StopReason.CREDENTIALS, f"the service rejected the API key ({error})")
        else:
            # Not every key may ask for it; a submission reveals all that matters.
            context.control.warn(f"cannot check the balance: {error}")
            context.health.unproven = True
        return
    left = balance.remaining
    if left is None or left >= cost:
        return
    enough = max(0, left) * images // cost
    text = f"the account has {dollars(left)}, but the planned images ({images:,}) cost about {dollars(cost)}"
    if not enough:
        context.control.stop_submitting(StopReason.BALANCE, text)
    else:
        context.control.warn(f"{text}; enough for about {enough:,} of them")
