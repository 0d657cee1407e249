"""The kinds of work that a run does on its manifest: generate images, verify stored ones, or poll ended tasks."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar, Protocol

from seedream_batch.client.images import ImageClient
from seedream_batch.engine.collector import Collector
from seedream_batch.engine.context import RunContext
from seedream_batch.engine.downloader import Downloader
from seedream_batch.engine.events import Recheck
from seedream_batch.engine.open_tasks import OpenTasks
from seedream_batch.engine.placement import move_files
from seedream_batch.engine.scheduler import Scheduler
from seedream_batch.engine.submitter import Submitter
from seedream_batch.engine.task_slots import TaskSlots
from seedream_batch.engine.verifier import verify


class RunParts:
    """The parts of a run, connected."""

    def __init__(self, context: RunContext, images: ImageClient) -> None:
        self.context = context
        self.slots = TaskSlots(context)
        self.downloads = Downloader(context, images, self.slots.breaker)
        self.collector = Collector(context, self.downloads)
        submitter = Submitter(context)
        self.open_tasks = OpenTasks(context, self.slots, submitter, self.collector, self.downloads)
        self.scheduler = Scheduler(context, self.slots, submitter, self.open_tasks)

    async def run(self, work: Work) -> None:
        """Work until nothing is left to do or the run ends; raise the first unexpected error then."""
        async with self.context.coordinator.heartbeats(self.slots.fail):
            await self.slots.run(lambda: self._feed(work))

    async def _feed(self, work: Work) -> None:
        context = self.context
        await context.coordinator.start()
        if context.start.alone:
            await context.writer.do(context.manifest.tasks.recover, context.clock.unix())
            if context.start.cut_off:
                await asyncio.to_thread(context.folder.sweep)
                await context.writer.do(context.manifest.workers.mark_swept)
            await self.open_tasks.adopt()
        await work.run(self)


class Work(Protocol):
    """What a run does."""

    verifies: ClassVar[bool]
    """Whether it checks stored images: no other worker may change them, and missing ones may still be fetched."""

    @property
    def asks(self) -> bool:
        """Whether it asks the service anything."""

    async def run(self, parts: RunParts) -> None:
        """Do it. Raise `RunStopped`."""


@dataclass(frozen=True, slots=True)
class Generate:
    """Generate the missing images."""

    verifies: ClassVar[bool] = False
    asks: ClassVar[bool] = True

    async def run(self, parts: RunParts) -> None:
        """Move images to where the job wants them, then continue and buy tasks."""
        if parts.context.start.alone:
            await move_files(parts.context)
            await parts.context.coordinator.unlock_startup()
        await parts.scheduler.run()


@dataclass(frozen=True, slots=True)
class Verify:
    """Check stored images, and fetch missing ones again; this buys nothing."""

    deep: bool = False
    """Decode every image, besides checking its size, hash and header."""
    asks: bool = True
    """Ask the service for new links, which needs a key."""
    named: int | None = None
    """How many missing images the result lists; None: all."""
    verifies: ClassVar[bool] = True

    async def run(self, parts: RunParts) -> None:
        """Verify, then poll lost tasks."""
        await verify(parts.context, parts.collector, parts.downloads, parts.slots.start, deep=self.deep, ask=self.asks)
        if self.asks:
            await parts.open_tasks.poll_lost(follow=False)


@dataclass(frozen=True, slots=True)
class PollAgain:
    """Poll the selected ended tasks of one kind, before the user decides whether to pay for them again."""

    what: Recheck
    verifies: ClassVar[bool] = False
    asks: ClassVar[bool] = True

    async def run(self, parts: RunParts) -> None:
        """Poll them, and fetch what is found."""
        if self.what is Recheck.LOST:
            await parts.open_tasks.poll_lost(selected=True, follow=False)
        else:
            await parts.open_tasks.complete_short()
