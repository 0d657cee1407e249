"""Verify every stored image against the manifest, and fetch what is missing again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial

from seedream_batch.engine.collector import DEFAULT_LINK_LIFETIME, Collector
from seedream_batch.engine.context import RunContext, event
from seedream_batch.engine.downloader import Downloader
from seedream_batch.engine.events import EventKind
from seedream_batch.engine.job_identity import on_another_machine
from seedream_batch.engine.placement import find, in_the_way, settle
from seedream_batch.errors import StorageError
from seedream_batch.files.integrity import check
from seedream_batch.model.outcome import ImageUrl
from seedream_batch.model.task import KNOWN_FOR, NOT_THERE, ImageRecord, ImageState, TaskRecord

PAGE = 256
"""Images that are checked together; so many records, but not their files, are in memory."""

PARALLEL = min(8, 2 * (os.cpu_count() or 1))
"""Files read at the same time: each is in memory, and with `deep` its pixels too."""

SHOWN = 20
"""Most unreadable files listed with their reason; the count includes all."""

NO_LINK = "the file was deleted, and the service no longer provides a link"
MOVE_AWAY = "move it away, then verify again"


Start = Callable[[TaskRecord, Coroutine[object, object, None]], Awaitable[None]]
"""Starts work on a task as soon as a slot is free."""


async def verify(
    context: RunContext, collector: Collector, downloads: Downloader, start: Start, *, deep: bool, ask: bool
) -> None:
    """Check what is stored, then fetch again what is missing. Buys and moves nothing. Raise `RunStopped`."""
    verifier = _Verifier(context, collector, downloads, deep=deep, ask=ask)
    await settle(context)
    await verifier.check()
    since = context.clock.unix() - KNOWN_FOR
    short = set(await context.writer.do(context.manifest.queue.short_of_images, since) if ask else ())
    for number in sorted(short.union(await context.writer.do(context.manifest.upkeep.incomplete))):
        task = await context.writer.do(context.manifest.tasks.get, number)
        await start(task, verifier.have_again(task, short=number in short))


class _Verifier:
    """Checks files, and asks the service for missing images."""

    def __init__(
        self, context: RunContext, collector: Collector, downloads: Downloader, *, deep: bool, ask: bool
    ) -> None:
        self._context = context
        self._collector = collector
        self._downloads = downloads
        self._deep = deep
        self._asks = ask
        self._files = asyncio.Semaphore(PARALLEL)

    async def check(self) -> None:
        """Check every image that is, or was, stored. Raise `RunStopped`."""
        context = self._context
        after = (0, 0)
        while page := await context.writer.do(context.manifest.upkeep.to_check, after, PAGE):
            results = await asyncio.gather(*(self._check(image) for image in page), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result
            after = (page[-1].task, page[-1].index)
        await context.writer.do(context.manifest.upkeep.restore_complete, context.clock.unix())

    async def _check(self, image: ImageRecord) -> None:
        context = self._context
        verified = context.record.verified
        async with self._files:
            context.control.check()
            try:
                place, result = await find(context, image, partial(check, deep=self._deep))
                if place is None and not result.there and context.start.other_folders:
                    on_another_machine(image.path)
            except StorageError as error:
                # The file cannot be read, so its state stays as it is.
                verified.unread += 1
                if len(verified.unreadable) < SHOWN:
                    verified.unreadable.append(str(error))
                return
            finally:
                verified.checked += 1
                context.record.stats.checked += 1
        missing = image.state is ImageState.MISSING
        if place is not None:
            if not missing and place == image.path:
                verified.whole += 1
            elif await context.writer.do(context.manifest.upkeep.restore, image, place, context.clock.unix()):
                verified.whole += 1
                verified.came_back += missing
            return
        # A changed file may be somebody's work: it is reported, and never touched.
        why = f"{result.wrong}; {MOVE_AWAY}" if result.there else result.wrong
        if not missing:
            verified.broken += 1
            await context.writer.do(context.manifest.images.move, image, ImageState.MISSING, why, context.clock.unix())
        elif why != image.reason and (image.url or result.there):
            # Without a link, the stored reason is the service's answer, and stays.
            await context.writer.do(
                context.manifest.images.update_reason, image, why, context.clock.unix(), link=bool(image.url)
            )

    async def have_again(self, task: TaskRecord, *, short: bool) -> None:
        """Ask for new links of a succeeded task's missing images, and fetch them. Raise `RunStopped`.

        With `short` the task was completed with too few images: it may have more by now.
        """
        context = self._context
        if short:
            await self._collector.complete(task)
        wanted = []
        for image in await context.writer.do(context.manifest.images.of_task, task.id):
            if image.state not in NOT_THERE:
                continue
            if await in_the_way(context, task, [image.index]):
                context.record.verified.in_the_way += 1
            else:
                wanted.append(image)
        if not self._asks:
            context.record.verified.to_ask += len(wanted)
            return
        anothers = await context.writer.do(context.manifest.tasks.is_of_other_account, task)
        if wanted and anothers:
            self._left_open(task, wanted, "it belongs to another account; use the API key it was submitted with")
        elif wanted:
            await self._ask(task, wanted)
        await self._downloads.fetch_all(task)

    async def _ask(self, task: TaskRecord, wanted: list[ImageRecord]) -> None:
        """Record the links that the service returns, or that there are none."""
        context = self._context
        poll = await self._collector.clear_answer(task)
        if poll is None:
            self._left_open(task, wanted, "the service gave no clear answer about its download links")
            return
        known = await context.writer.do(context.manifest.images.delivered, task.id)
        # Links are matched by position only: a list of another length cannot be matched.
        links = poll.images if len(poll.images) == known else ()
        now = context.clock.unix()

        manifest = context.manifest

        def note() -> None:
            for image in wanted:
                link = links[image.index - 1] if image.index <= len(links) else None
                if link is not None and _is_new(image, link, now):
                    manifest.images.renew_link(image, link, default_expiry=now + DEFAULT_LINK_LIFETIME, now=now)
                elif image.state is ImageState.MISSING:
                    manifest.images.update_reason(image, NO_LINK, now, link=False)

        await context.writer.do(note)

    def _left_open(self, task: TaskRecord, wanted: list[ImageRecord], why: str) -> None:
        context = self._context
        context.record.verified.unanswered += len(wanted)
        context.record.stats.trouble += 1
        context.control.emit(event(EventKind.WARNING, task, why))


def _is_new(image: ImageRecord, link: ImageUrl, now: float) -> bool:
    """Return whether a link may yield what the last one did not."""
    if link.expires_at is not None and link.expires_at <= now:
        return False
    return image.state is not ImageState.EXPIRED or link.url != image.url
