"""Run the work on tasks in flight, each in one of `max_in_flight` slots."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

from seedream_batch.engine.circuit_breaker import Breaker
from seedream_batch.engine.context import RunContext
from seedream_batch.engine.events import StopReason
from seedream_batch.engine.stop_control import RunStopped, Signal
from seedream_batch.errors import StorageError
from seedream_batch.model.task import TaskRecord


class TaskSlots:
    """The slots of a run.

    Every task in flight, from its submission to its last file, holds one. So a slow disk delays downloads, these hold
    their slots, and nothing new is bought until a slot is free.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._group: asyncio.TaskGroup
        self._failure: Exception | None = None
        self.changed = Signal()
        """Set when a task in flight has ended, and when the breaker lets the run buy again."""
        self.breaker = Breaker(self.changed.set)
        self.working: dict[int, asyncio.Task[None]] = {}
        """The work on each task in flight, by task number."""
        self.images = 0
        """Images that the tasks in flight may yield."""

    async def run(self, feed: Callable[[], Awaitable[None]]) -> None:
        """Run `feed`, which starts work, until all work has ended; then raise the first unexpected error."""
        async with asyncio.TaskGroup() as self._group:
            try:
                await feed()
            except RunStopped:
                pass
            except Exception as error:  # noqa: BLE001 - raised again below
                self.fail(error)
        if self._failure is not None:
            raise self._failure

    def fail(self, error: Exception) -> None:
        """Keep the first error and stop the run; outstanding requests still complete and are recorded.

        Raised at once, it would cancel submissions already sent, and their task ids would be lost.
        """
        text = str(error) or type(error).__name__
        if self._failure is None:
            self._failure = error
            self._context.control.warn(f"the run stops after an error: {text}")
        self._context.control.end(StopReason.STORAGE if isinstance(error, StorageError) else StopReason.FAULT, text)

    async def take(self) -> None:
        """Wait until one more task may be in flight. Only the feed starts work, so nobody else takes the slot."""
        self._context.control.check()
        while len(self.working) >= self._context.job.run.max_in_flight:
            await self.until_changed()

    async def start(self, task: TaskRecord, work: Coroutine[object, object, None]) -> None:
        """Start work on a task as soon as a slot is free. Raise `RunStopped`."""
        try:
            await self.take()
        except BaseException:
            work.close()
            raise
        self.spawn(task, work)

    def spawn(self, task: TaskRecord, work: Coroutine[object, object, None]) -> None:
        """Start work on a task in the slot just taken."""
        self.working[task.id] = self._group.create_task(self._in_slot(task.id, task.images, work))
        self.images += task.images
        self._context.record.stats.in_flight = len(self.working)

    async def _in_slot(self, number: int, images: int, work: Coroutine[object, object, None]) -> None:
        try:
            await work
        except RunStopped:
            pass
        except Exception as error:  # noqa: BLE001 - raised again at the end of the run
            self.fail(error)
        finally:
            self.working.pop(number, None)
            self.breaker.ended(number)
            self.images -= images
            self._context.record.stats.in_flight = len(self.working)
            self.changed.set()

    async def until_changed(self) -> None:
        """Wait until a task in flight has ended. Raise `RunStopped`."""
        self.changed.clear()
        if self.working:
            await self._context.control.until(self.changed)
