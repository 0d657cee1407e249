"""Continue tasks that were submitted before: download, poll, resend, and poll lost ones, which is free."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from seedream_batch.engine.collector import Collector
from seedream_batch.engine.context import RunContext
from seedream_batch.engine.downloader import Downloader
from seedream_batch.engine.submitter import Submitter
from seedream_batch.engine.task_slots import TaskSlots
from seedream_batch.engine.workers.coordinator import AHEAD
from seedream_batch.model.task import KNOWN_FOR, TaskRecord, TaskState

MOST_LOST = 1000
"""Lost tasks polled per run; of more, a random sample, so that later runs reach the others."""


class OpenTasks:
    """The tasks of the manifest that were submitted, and whose results may still be fetched."""

    def __init__(
        self, context: RunContext, slots: TaskSlots, submitter: Submitter, collector: Collector, downloads: Downloader
    ) -> None:
        self._context = context
        self._slots = slots
        self._submitter = submitter
        self._collector = collector
        self._downloads = downloads
        self._polled_lost: set[int] = set()
        """Lost tasks that this run has polled, or started to poll."""

    async def adopt(self) -> None:
        """Record files that a killed run had given their final names, before anything is moved or downloaded."""
        numbers = await self._context.writer.do(self._context.manifest.queue.to_fetch)
        for start in range(0, len(numbers), AHEAD):
            page = numbers[start : start + AHEAD]
            for task in await self._context.writer.do(self._context.manifest.tasks.records, page):
                await self._downloads.adopt(task)

    async def resume(self) -> None:
        """Continue everything that was submitted and that no other worker owns."""
        context = self._context
        if not context.options.submit_only:
            await self._collect_first()
        if context.options.resend and not context.options.collect:
            async for task in self.owned(await context.writer.do(context.manifest.queue.unowned, TaskState.UNCERTAIN)):
                only = context.options.resend_only
                chosen = await context.writer.do(context.manifest.queue.is_selected, task)
                waits = task.state is TaskState.UNCERTAIN and not task.held
                if chosen and waits and context.control.may_submit() and (only is None or task.id in only):
                    await self._slots.start(task, self._resend_and_follow(task))

    async def _collect_first(self) -> None:
        """Collect what is already paid for: images whose links expire soonest first, then running tasks."""
        async for task in self.owned(await self._context.writer.do(self._context.manifest.queue.to_fetch)):
            # Only the tasks that this worker owns.
            self._slots.breaker.carries([task.id])
            if not self._context.start.alone:
                await self._downloads.adopt(task)
            await self._slots.start(task, self._downloads.fetch_all(task))
        async for task in self.owned(
            await self._context.writer.do(self._context.manifest.queue.unowned, TaskState.ACCEPTED)
        ):
            if task.state is TaskState.ACCEPTED:
                await self._slots.start(task, self.follow(task, at_once=True))
        await self.poll_lost()

    async def poll_lost(self, *, selected: bool = False, follow: bool = True) -> None:
        """Poll lost tasks, each once per run: that is free, and may find what was paid for.

        All `selected` ones, else a sample of any. With `follow`, those that still run are polled until they end.
        """
        context = self._context
        known = self._polled_lost
        since = context.clock.unix() - KNOWN_FOR
        lost = [number for number in await context.writer.do(context.manifest.queue.lost, since) if number not in known]
        room = MOST_LOST - len(known)
        if len(lost) > room and not selected:
            lost = sorted(context.random.sample(lost, max(room, 0)))
        known.update(lost)
        async for task in self.owned(lost):
            chosen = not selected or await context.writer.do(context.manifest.queue.is_selected, task)
            if chosen and task.state is TaskState.LOST:
                await self._slots.start(task, self._find_again(task, follow=follow))

    async def complete_short(self) -> None:
        """Poll the selected tasks that completed with too few images, and fetch what they have by now."""
        since = self._context.clock.unix() - KNOWN_FOR
        async for task in self.owned(
            await self._context.writer.do(self._context.manifest.queue.short_of_images, since)
        ):
            await self._slots.start(task, self._collector.complete(task))

    async def owned(self, numbers: Sequence[int]) -> AsyncIterator[TaskRecord]:
        """Take ownership of these tasks and yield their current records, page by page: there may be a million.

        None of them may be in flight yet. A worker takes no more than it can start at once.
        """
        coordinator = self._context.coordinator
        if coordinator.left_behind:
            numbers = [number for number in numbers if number not in coordinator.left_behind]
        start = 0
        while start < len(numbers):
            page = numbers[start : start + coordinator.page_size(len(self._slots.working))]
            start += len(page)
            for task in await self._context.writer.do(self._context.manifest.queue.own, page):
                yield task

    async def follow(self, task: TaskRecord, *, at_once: bool) -> None:
        """Poll an accepted task until it ends, and fetch its images; `at_once` if it is from an earlier run."""
        await self._downloads.fetch(task, await self._collector.poll_to_end(task, at_once=at_once))

    async def _find_again(self, task: TaskRecord, *, follow: bool) -> None:
        await self._downloads.fetch(task, await self._collector.find_again(task, follow=follow))

    async def _resend_and_follow(self, task: TaskRecord) -> None:
        accepted = await self._submitter.resend(task)
        if accepted is not None and not self._context.options.submit_only:
            await self.follow(accepted, at_once=False)
