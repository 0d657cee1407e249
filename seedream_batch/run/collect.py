"""Collecting: polling accepted tasks to their end, and fetching their images until they stand on the disk."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path

from seedream_batch.errors import StorageError
from seedream_batch.files.folder import Occupied, sync, writing
from seedream_batch.files.pictures import BadPicture, Picture, inspect
from seedream_batch.lifecycle import Move, after_poll, backoff, combine
from seedream_batch.manifest.store import StoredFile
from seedream_batch.model.outcome import Fetched, Poll, Polled
from seedream_batch.model.task import ImageRecord, ImageState, TaskRecord, TaskState, image_path
from seedream_batch.run.arrange import make_room
from seedream_batch.run.context import Context, EventKind, StopReason, event

DEFAULT_LINK_LIFETIME = 24 * 3600.0
"""Seconds that a result link works when the service does not say [Seedream 4.5 API documentation]."""

MOST_TRIES = 5
"""Downloads of one image that may go wrong in one run before it is left to the next one."""

MOST_DENIED = 3
"""Looks in a row that may be refused (401, 403) before the run ends."""

PARALLEL_DOWNLOADS = 8


@dataclass(frozen=True, slots=True)
class _Got:
    """What one try at an image brought: a verified file under a hidden name, or what went wrong."""

    kind: Fetched
    message: str = ""
    bad: bool = False
    """Every byte came, and they are no good picture."""
    part: Path | None = None
    file: StoredFile | None = None
    picture: Picture | None = None


class Collector:
    """Follows tasks from their task id to their files."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._downloads = asyncio.Semaphore(PARALLEL_DOWNLOADS)

    async def poll_to_end(self, task: TaskRecord, *, at_once: bool) -> TaskRecord:
        """Looks at an accepted task until it has ended; the task in its new state. Raises `Stopping`."""
        context = self._context
        looks = 0
        submitted_at = task.submitted_at or context.clock()
        deadline = task.deadline or submitted_at + context.job.run.task_timeout
        while True:
            age = max(0.0, context.clock() - submitted_at)
            if not (at_once and looks == 0):
                await context.rest(context.schedule.wait(task.resolution, age, looks))
            poll = await self._look(task, age)
            looks += 1
            await self._notice(poll)
            now = context.clock()
            move = after_poll(poll, now=now, submitted_at=submitted_at, deadline=deadline)
            if move is not None:
                if not at_once or looks > 1:
                    context.schedule.learn(task.resolution, now - submitted_at)
                return await self._ended(task, poll, move, now)

    async def fetch_all(self, task: TaskRecord) -> None:
        """Fetches every image of a succeeded task that is not there yet. Raises `Stopping`."""
        images = await self._context.writer.do(lambda m: m.images(task.id))
        waiting = [image for image in images if image.state is ImageState.ANNOUNCED]
        results = await asyncio.gather(*(self._fetch(task, image) for image in waiting), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _look(self, task: TaskRecord, age: float) -> Poll:
        """One look at every task id of a task."""
        polls = [await self._context.service.poll(task_id) for task_id in task.task_ids]
        return combine(polls, age)

    async def _notice(self, poll: Poll) -> None:
        context = self._context
        if poll.kind is Polled.NO_ANSWER:
            context.not_heard(poll.message)
            if poll.retry_after:
                await context.rest(poll.retry_after)
        elif poll.kind is Polled.UNAUTHORIZED:
            context.denied += 1
            text = f"the service refuses the API key (HTTP {poll.status})"
            context.stop_submitting(StopReason.CREDENTIALS, text)
            if context.denied >= MOST_DENIED:
                context.end(StopReason.CREDENTIALS, text)
        elif poll.kind is Polled.RATE_LIMITED:
            wait = poll.retry_after if poll.retry_after is not None else backoff(2, random=context.random)
            context.heard_from_service()
            context.slow_down(wait, f"HTTP {poll.status}")
            await context.rest(wait)
        else:
            context.heard_from_service()

    async def _ended(self, task: TaskRecord, poll: Poll, move: Move, now: float) -> TaskRecord:
        context = self._context
        stats = context.stats
        for note in poll.notes:
            context.emit(event(EventKind.WARNING, task, note))
        match move.to:
            case TaskState.SUCCEEDED:
                if len(poll.images) != task.images:
                    context.emit(
                        event(EventKind.WARNING, task, f"{len(poll.images)} of {task.images} images were delivered")
                    )
                await context.writer.do(
                    lambda m: m.succeeded(
                        task, poll.images, cost=poll.cost, why=move.why, now=now,
                        default_expiry=now + DEFAULT_LINK_LIFETIME,
                    )
                )  # fmt: skip
                stats.cost += task.price * len(poll.images) if poll.cost is None else poll.cost
            case TaskState.FAILED:
                again = not move.final and task.failures + 1 < context.job.run.attempts
                retry_at = now + backoff(task.failures + 2, random=context.random) if again else None
                await context.writer.do(
                    lambda m: m.failed(task, why=move.why, code=move.code, retry_at=retry_at, now=now)
                )
                if again:
                    stats.retried += 1
                    context.emit(event(EventKind.RETRY, task, f"failed ({move.why}); trying again"))
                else:
                    stats.failed += 1
                    context.emit(event(EventKind.FAILED, task, move.why, code=move.code))
            case TaskState.LOST:
                await context.writer.do(lambda m: m.lost(task, why=move.why, now=now))
                stats.lost += 1
                context.emit(event(EventKind.LOST, task, move.why))
            case _:
                raise AssertionError(f"a look at a task does not lead to {move.to}")
        return await context.writer.do(lambda m: m.task(task.id))

    async def _fetch(self, task: TaskRecord, image: ImageRecord) -> None:
        context = self._context
        if await self._adopt(task, image):
            return
        for tries in range(1, MOST_TRIES + 1):
            async with self._downloads:
                context.check()
                got = await self._try(task, image)
                if got.kind is Fetched.WHOLE:
                    await self._store(task, image, got)
                    return
            fresh = await self._again(task, image, got, tries)
            if fresh is None:
                return
            image = fresh
        context.stats.trouble += 1
        context.emit(event(EventKind.WARNING, task, f"image {image.index} could not be fetched now: {image.reason}"))

    async def _again(self, task: TaskRecord, image: ImageRecord, got: _Got, tries: int) -> ImageRecord | None:
        """What to try next: the image, with a fresh URL where one could be had; None when nothing is left to try."""
        context = self._context
        now = context.clock()
        if got.kind is Fetched.REFUSED:
            await self._give_up(task, image, ImageState.REJECTED, got.message)
            return None
        if got.kind is Fetched.BROKEN and tries < 2:
            await context.rest(backoff(tries, random=context.random))
            return await context.writer.do(
                lambda m: m.try_again(image, why=got.message, url=None, expires_at=None, now=now)
            )
        # The link is dead, or what it gives is no good: another look at the task may give fresh links, and is free.
        poll = await self._look(task, context.clock() - (task.submitted_at or 0.0))
        fresh = poll.images[image.index - 1] if len(poll.images) >= image.index else None
        if poll.kind is Polled.FAILED:
            context.emit(
                event(EventKind.WARNING, task, "reported as failed after it was completed; the first word counts")
            )
        gone = got.kind is Fetched.GONE
        no_more = poll.kind in {Polled.COMPLETED, Polled.FAILED, Polled.NOT_FOUND}
        if gone and no_more and (fresh is None or (fresh.url == image.url and tries > 1)):
            await self._give_up(
                task, image, ImageState.EXPIRED, f"the link is dead ({got.message}) and no other could be had"
            )
            return None
        if got.bad and image.tries + 1 >= MOST_TRIES:
            await self._give_up(task, image, ImageState.REJECTED, got.message)
            return None
        await context.rest(backoff(tries, random=context.random))
        url = fresh.url if fresh else None
        expires = fresh.expires_at if fresh else None
        return await context.writer.do(
            lambda m: m.try_again(image, why=got.message, url=url, expires_at=expires, now=now)
        )

    async def _give_up(self, task: TaskRecord, image: ImageRecord, state: ImageState, why: str) -> None:
        context = self._context
        await context.writer.do(lambda m: m.move_image(image, state, why, context.clock()))
        context.stats.trouble += 1
        kind = EventKind.EXPIRED if state is ImageState.EXPIRED else EventKind.REJECTED
        context.emit(event(kind, task, f"image {image.index}: {why}"))

    async def _try(self, task: TaskRecord, image: ImageRecord) -> _Got:
        """One download into a hidden file beside its place, synced and looked at."""
        stem = image_path(task.paths, task.images, image.index)
        folder = self._context.folder
        part = await asyncio.to_thread(folder.new_part, stem)
        digest = hashlib.sha256()
        with writing(part) as stream:

            def take(chunk: bytes) -> None:
                digest.update(chunk)
                stream.write(chunk)

            download = await self._context.images.fetch(image.url, take)
            if download.kind is Fetched.WHOLE:
                await asyncio.to_thread(sync, stream)
        if download.kind is not Fetched.WHOLE:
            await asyncio.to_thread(folder.discard, part)
            return _Got(download.kind, download.message)
        try:
            picture = await asyncio.to_thread(inspect, part)
        except BadPicture as error:
            await asyncio.to_thread(folder.discard, part)
            return _Got(Fetched.BROKEN, f"the downloaded file {error}", bad=True)
        file = StoredFile(download.bytes, digest.hexdigest(), picture.width, picture.height, picture.format)
        return _Got(Fetched.WHOLE, part=part, file=file, picture=picture)

    async def _store(self, task: TaskRecord, image: ImageRecord, got: _Got) -> None:
        """Gives the verified file its final name: the hash first, then the name, then the word that it is there."""
        context = self._context
        part, file, picture = got.part, got.file, got.picture
        if part is None or file is None or picture is None:
            raise AssertionError("a whole download has a file")
        path = f"{image_path(task.paths, task.images, image.index)}.{picture.extension}"
        try:
            await make_room(context, task, path)
            await context.writer.do(lambda m: m.placing(image, path, file, context.clock()))
            await asyncio.to_thread(context.folder.place, part, path)
        except StorageError as error:
            await asyncio.to_thread(context.folder.discard, part)
            context.stats.trouble += 1
            if not isinstance(error, Occupied):
                raise
            context.stop_submitting(StopReason.STORAGE, str(error))
            return
        await self._stored(task, image, file)

    async def _stored(self, task: TaskRecord, image: ImageRecord, file: StoredFile) -> None:
        context = self._context
        why = f"{file.width} x {file.height} {file.format}, {file.bytes} bytes"
        await context.writer.do(lambda m: m.move_image(image, ImageState.STORED, why, context.clock()))
        context.stats.stored += 1
        context.stats.stored_bytes += file.bytes
        context.emit(event(EventKind.STORED, task, why, index=image.index))

    async def _adopt(self, task: TaskRecord, image: ImageRecord) -> bool:
        """Whether a killed run had already given the file its name: then only the word is missing."""
        if image.path is None or image.sha256 is None:
            return False
        path = image.path
        if await asyncio.to_thread(self._context.folder.sha256, path) != image.sha256:
            return False
        file = StoredFile(image.bytes or 0, image.sha256, image.width or 0, image.height or 0, image.format or "")
        await self._stored(task, image, file)
        return True
