"""Download the images of finished tasks: repeat, validate, place and record them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from seedream_batch.client.images import MAX_IMAGE, ImageClient, host_of
from seedream_batch.delivery import is_placeholder, wrong_picture
from seedream_batch.engine.circuit_breaker import Breaker
from seedream_batch.engine.context import RunContext, event, flag
from seedream_batch.engine.download_writer import DownloadWriter
from seedream_batch.engine.events import EventKind, StopReason
from seedream_batch.engine.file_placer import FilePlacer
from seedream_batch.engine.placement import assign_place, clear_leftovers, step_aside_earlier
from seedream_batch.engine.polls import look
from seedream_batch.engine.stop_control import RunStopped
from seedream_batch.errors import StorageError
from seedream_batch.files.destination import Destination
from seedream_batch.files.image_inspection import BadPicture, NoPicture, Picture, has_end, inspect, unwrapped
from seedream_batch.files.local_folder import Occupied
from seedream_batch.files.temp_file import TempFile, writing
from seedream_batch.lifecycle import backoff
from seedream_batch.manifest.image_store import StoredFile, Storing
from seedream_batch.model.job import REFERENCE
from seedream_batch.model.outcome import Fetched, ImageUrl, Polled
from seedream_batch.model.task import SAME_BYTES, ImageRecord, ImageState, TaskRecord, image_path

MOST_TRIES = 5
"""Downloads of one image per run that may fail for a reason that waiting does not fix."""

TRYING = 600.0
"""Seconds for which a run retries a download that may still succeed; then the next run retries it."""

SETTLING = 60.0
"""Seconds for which a run retries a link that is dead, or leads to something else than an image: some hosts publish an
image only a while after its link."""

MORE_TRIES = 2
"""Further downloads of an image that is not what was requested, before it is stored."""

MOST_IN_VAIN = 8
"""Repeated downloads that brought no better image after which a run stops making them."""

PARALLEL_DOWNLOADS = 8


@dataclass(frozen=True, slots=True)
class _DownloadResult:
    """The result of one download: a verified temp file, or what went wrong."""

    kind: Fetched
    message: str = ""
    bad: bool = False
    """Every byte was received, but they are no valid image."""
    stands_in: bool = False
    """It is what the image host gives in place of an image: a placeholder, a page, nothing."""
    lasting: bool = False
    """Retrying soon is of little use."""
    retry_after: float = 0.0
    """Seconds that the host asks to wait."""
    temp_path: Path | None = None
    file: StoredFile | None = None
    picture: Picture | None = None


class Downloader:
    """Downloads images until they are stored, given up or left for the next run."""

    def __init__(self, context: RunContext, images: ImageClient, breaker: Breaker) -> None:
        self._context = context
        self._images = images
        self._breaker = breaker
        self._paused_hosts: dict[str, float] = {}
        """Until when image hosts asked for no downloads, in seconds of the monotonic clock."""
        self._downloads = asyncio.Semaphore(PARALLEL_DOWNLOADS)
        self._placer = FilePlacer(context.folder)
        self._useless_repeats = 0
        """Repeated downloads without a better image in a row; negative once one was better."""

    async def fetch_all(self, task: TaskRecord) -> None:
        """Download every announced image of a succeeded task. Raise `RunStopped`."""
        await self.fetch(task, await self._context.writer.do(self._context.manifest.images.of_task, task.id))

    async def fetch(self, task: TaskRecord, images: Sequence[ImageRecord]) -> None:
        """Download the announced ones of these images of a task. Raise `RunStopped`."""
        waiting = [image for image in images if image.state is ImageState.ANNOUNCED]
        if len(waiting) == 1:
            # Most tasks have one image, and it needs no task of the loop.
            results: list[bool | BaseException] = [await self._fetch(task, waiting[0])]
        else:
            results = await asyncio.gather(*(self._fetch(task, image) for image in waiting), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        rest = [image for image in images if image.state is not ImageState.ANNOUNCED]
        if waiting and all(results) and all(image.state is ImageState.STORED for image in rest):
            await clear_leftovers(self._context, task, [image.index for image in images])

    async def adopt(self, task: TaskRecord) -> None:
        """Record files as stored that a killed run had already given their final names. Raise `StorageError`."""
        for image in await self._context.writer.do(self._context.manifest.images.of_task, task.id):
            if image.state is ImageState.ANNOUNCED:
                await self._adopt(task, image)

    async def _fetch(self, task: TaskRecord, image: ImageRecord) -> bool:
        """Download one image until it is stored, given up or left for the next run; return whether it is stored.

        Raise `RunStopped` or `StorageError`.
        """
        context = self._context
        tries = bad = lasting = 0
        began: float | None = None
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
            now = context.clock.monotonic()
            began = now if began is None else began
            settled = now - began >= SETTLING
            if bad >= MOST_TRIES and (settled or not result.stands_in):
                valid = result.stands_in and context.clock.unix() < (image.expires_at or 0.0)
                if valid or self._breaker.open:
                    # A page in place of every image points to the network path, not to the images; one in place of a
                    # few may be replaced by the image later.
                    self._leave_for_next_run(task, image, result.message, dead=not self._breaker.open)
                else:
                    await self._give_up(task, image, ImageState.REJECTED, result.message)
                return False
            lasting += result.lasting
            wait = max(backoff(tries, random=context.random), result.retry_after)
            if result.retry_after:
                self._paused_hosts[host] = max(self._paused_hosts.get(host, 0.0), now + result.retry_after)
            over = now + wait > began + TRYING
            hopeless = over or lasting >= MOST_TRIES or context.control.reason is StopReason.DOWNLOADS
            fresh = await self._next_try(task, image, result, tries, 0.0 if hopeless else wait, settled=settled)
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
        """Return why a complete image is not what was requested; empty if it is, as far as can be judged."""
        file = result.file
        if file is None:
            raise AssertionError("a whole download has a file")
        twin = await self._context.writer.join(
            self._context.manifest.images.same_bytes, (image, file.sha256), reads=True
        )
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
        width, height = (file.height, file.width) if file.turned else (file.width, file.height)
        return wrong_picture(task.size, task.resolution, width, height, references)

    async def _fresh_link(self, task: TaskRecord, image: ImageRecord) -> ImageUrl | None:
        """Return the image's current link, if the service lists as many links as it delivered images.

        Links are matched by position only: a list of another length cannot be matched.
        """
        poll = await look(self._context, task, self._context.clock.unix() - (task.submitted_at or 0.0))
        known = await self._context.writer.do(self._context.manifest.images.delivered, task.id)
        return poll.images[image.index - 1] if len(poll.images) == known >= image.index else None

    async def _next_try(
        self, task: TaskRecord, image: ImageRecord, result: _DownloadResult, tries: int, wait: float, *, settled: bool
    ) -> ImageRecord | None:
        """Return the image to try next, with a fresh URL if there is one; None when nothing is left to try.

        A dead link that the service repeats is tried again until it is `settled`.
        """
        context = self._context
        url, expires = None, None
        if result.kind is not Fetched.BROKEN or tries > 1:
            # The link is dead or yields no valid image: another poll, which is free, may return fresh links.
            poll = await look(self._context, task, context.clock.unix() - (task.submitted_at or 0.0))
            if poll.kind is Polled.FAILED:
                text = "the service reported it as completed, then as failed; treated as completed"
                context.control.emit(event(EventKind.WARNING, task, text))
            # Links are matched by position only: a list of another length cannot be matched.
            known = await context.writer.do(context.manifest.images.delivered, task.id)
            fresh = poll.images[image.index - 1] if len(poll.images) == known >= image.index else None
            if fresh is not None:
                url, expires = fresh.url, fresh.expires_at
            elif result.kind is Fetched.GONE and poll.kind in {Polled.COMPLETED, Polled.FAILED, Polled.NOT_FOUND}:
                await self._without_link(task, image, result)
                return None
            if result.kind is Fetched.GONE and url == image.url and tries > 2 and settled:
                await self._without_link(task, image, result)
                return None
        await context.control.rest(wait)
        return await context.writer.do(
            context.manifest.images.retry_download,
            image,
            why=result.message,
            url=url,
            expires_at=expires,
            now=context.clock.unix(),
        )

    async def _without_link(self, task: TaskRecord, image: ImageRecord, result: _DownloadResult) -> None:
        """Give up an image whose link is dead and has no replacement, but only once the link has expired."""
        why = f"the download link no longer works ({result.message}), and the service provides no new one"
        if self._context.clock.unix() >= (image.expires_at or 0.0):
            await self._give_up(task, image, ImageState.EXPIRED, why)
        else:
            self._leave_for_next_run(task, image, why, dead=True)

    def _leave_for_next_run(self, task: TaskRecord, image: ImageRecord, why: str, *, dead: bool = False) -> None:
        """Leave an image announced for the next run; `dead` if it has nothing but a dead link."""
        self._breaker.left(task.id, why, dead=dead)
        self._context.record.stats.trouble += 1
        self._context.control.emit(
            event(EventKind.WARNING, task, f"image {image.index} could not be downloaded now: {why}")
        )

    async def _give_up(self, task: TaskRecord, image: ImageRecord, state: ImageState, why: str) -> None:
        context = self._context
        await context.writer.do(context.manifest.images.move, image, state, why, context.clock.unix())
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
            text, bad = f"the downloaded file {wrong}", isinstance(wrong, BadPicture)
            return _DownloadResult(Fetched.BROKEN, text, bad=bad, stands_in=isinstance(wrong, NoPicture))
        if is_placeholder(picture.width, picture.height):
            await asyncio.to_thread(folder.discard, path)
            text = f"the host returned a placeholder of {picture.width} x {picture.height} pixels"
            return _DownloadResult(Fetched.BROKEN, text, bad=True, stands_in=True)
        file = StoredFile(
            temp_file.bytes, temp_file.sha256, picture.width, picture.height, picture.format, picture.turned
        )
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

    async def _stored(self, task: TaskRecord, image: ImageRecord, file: StoredFile) -> None:
        context = self._context
        why = f"{file.width} x {file.height} {file.format}, {file.bytes:,} bytes"
        doubt = self._not_as_requested(task, file)
        storing = Storing(image, file, why, doubt, context.clock.unix())
        warning = await context.writer.join(context.manifest.images.store_all, storing)
        context.record.stats.stored += 1
        self._breaker.stored()
        context.record.stats.stored_bytes += file.bytes
        context.control.emit(event(EventKind.STORED, task, why, index=image.index))
        if warning:
            flag(self._context, task, f"image {image.index}: {warning}")

    async def _adopt(self, task: TaskRecord, image: ImageRecord) -> None:
        if image.path is None or image.sha256 is None:
            return
        if not await asyncio.to_thread(_is_stored, self._context.folder, image.path, image.sha256):
            return
        if await self._context.writer.do(self._context.manifest.images.owner, image.path or ""):
            # Another image with the same bytes owns the path.
            return
        file = StoredFile(image.bytes or 0, image.sha256, image.width or 0, image.height or 0, image.format or "")
        await self._stored(task, image, file)


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

    An image that a proxy or host compressed or wrapped is unwrapped.
    """
    writer.finish()
    try:
        return inspect(temp_file.path), None
    except OSError as error:
        return None, error
    except BadPicture as error:
        wrong = error
    for inside in unwrapped(temp_file.path.read_bytes(), MAX_IMAGE):
        with suppress(BadPicture):
            picture = inspect(inside)
            temp_file.replace(inside)
            return picture, None
    return None, wrong


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
