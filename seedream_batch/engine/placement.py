"""Decide where files go: the path of a new image, and moves of images whose path in the job changed.

Paths are relative to the output folder. Functions raise `StorageError` if a file cannot be read or written.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import PurePosixPath

from seedream_batch.engine.context import RunContext
from seedream_batch.engine.events import Event, EventKind, StopReason
from seedream_batch.errors import StorageError
from seedream_batch.files.destination import Destination
from seedream_batch.files.image_inspection import EXTENSIONS
from seedream_batch.files.integrity import GONE, CheckResult, ExpectedFile, check_size, identical
from seedream_batch.files.local_folder import Changed, Occupied
from seedream_batch.manifest.image_store import Placement, StoredFile, gives_way
from seedream_batch.model.task import ImageRecord, ImageState, TaskRecord, home_of, image_path

SUPERSEDED = "superseded"
"""The folder, inside the output folder, for images that the job no longer asks for and whose path is taken."""

STAGING = ".seedream-moving"
"""The hidden folder for files that wait until the file at their new path has moved."""

MOST_IMAGES = 15
"""Images that one task may have [Seedream 4.5 API documentation]."""

PAGE = 256
"""Missing images that are looked up together."""

LEFT_ALONE = "the file there is kept"


async def move_files(context: RunContext) -> None:
    """Move every stored file whose path in the job changed; images in the way are moved aside first.

    A path that is taken by another file stops submissions.
    """
    await settle(context)
    await _restore_missing(context)
    async for image in _images_to_move(context):
        # A file that was moved aside for another one has a new path by now.
        current = (await context.writer.do(context.manifest.images.of_task, image.task))[image.index - 1]
        target = current.target
        if target is None or current.state is not ImageState.STORED:
            continue
        try:
            moved = await _move_home(context, current, target)
        except Occupied as error:
            context.record.stats.trouble += 1
            context.control.stop_submitting(StopReason.STORAGE, str(error))
        else:
            if moved:
                context.record.stats.moved += 1
                details = {"old": current.path, "new": target}
                context.control.emit(Event(EventKind.MOVED, f"{current.path} -> {target}", details))
    # The last move removes the folder, unless a run was killed just before that.
    await asyncio.to_thread(context.folder.drop_if_empty, STAGING)


async def _move_home(context: RunContext, image: ImageRecord, target: str) -> bool:
    """Move one stored file to its path in the job; return whether it is there now. Raise `Occupied`."""
    place, result = await find(context, image, check_size)
    if place is None:
        await _record_missing(context, image, result)
        return False
    if place == target:
        # Whoever edited the path may have moved the file as well.
        return await context.writer.do(context.manifest.upkeep.restore, image, target, context.clock.unix())
    owner = await context.writer.do(context.manifest.images.owner, target)
    if owner is not None:
        await _step_aside(context, *owner)
    return await _relocate(context, image, target, None)


async def _restore_missing(context: RunContext) -> None:
    """Restore missing images whose file is intact again, at its recorded path or at its path in the job."""
    after = (0, 0)
    restored = 0
    while page := await context.writer.do(context.manifest.upkeep.missing, after, PAGE):
        for image in page:
            try:
                place, _ = await find(context, image, identical)
            except StorageError:
                # The file cannot be read, so it stays missing; `verify` reports why.
                continue
            if place is not None:
                restored += await context.writer.do(context.manifest.upkeep.restore, image, place, context.clock.unix())
        after = (page[-1].task, page[-1].index)
    if restored:
        await context.writer.do(context.manifest.upkeep.restore_complete, context.clock.unix())


Look = Callable[[Destination, ExpectedFile], CheckResult]


async def find(context: RunContext, image: ImageRecord, look: Look) -> tuple[str | None, CheckResult]:
    """Return where the file of an image is: at its recorded path or at its path in the job, as far as `look` can tell.

    If it is at neither, the path is None and the result says what is wrong; `there` then means that another file is at
    its path in the job.
    """
    path = image.path or ""

    async def see(place: str) -> CheckResult:
        if await context.writer.do(context.manifest.images.belongs_to_another, image, place):
            return CheckResult(there=False, wrong=GONE)
        return await asyncio.to_thread(look, context.folder, ExpectedFile.of(image, place))

    result = await see(path)
    if not result.wrong:
        return path, result
    task = await context.writer.do(context.manifest.tasks.get, image.task)
    home = home_of(task, image)
    if task.ordinal is None or home == path:
        return None, result
    # At a path where it was never stored, only identical bytes are accepted.
    if look is check_size:
        look = identical
    at_home = await see(home)
    if not at_home.wrong:
        return home, at_home
    if at_home.there:
        return None, dataclasses.replace(at_home, wrong=f"{home}: {at_home.wrong}")
    wrong = f"{path}: {result.wrong}; {LEFT_ALONE}" if result.there else result.wrong
    return None, CheckResult(there=False, wrong=wrong)


async def _images_to_move(context: RunContext) -> AsyncIterator[ImageRecord]:
    """Yield the stored images whose file has to move, read page by page: a changed path may move a million files."""
    after = (0, 0)
    while page := await context.writer.do(context.manifest.images.moving, after):
        for image in page:
            yield image
        after = (page[-1].task, page[-1].index)


async def assign_place(
    context: RunContext, task: TaskRecord, image: ImageRecord, file: StoredFile, extension: str
) -> str:
    """Return the path of a new image and record it; raise `Occupied` if an image that stays has that path.

    Images that the job no longer asks for are moved aside, also one with the same stem in the other format: otherwise
    an old and a new image would lie side by side. An image that the job stopped asking for while it was made goes to
    `SUPERSEDED`.
    """
    stem = image_path(task.paths, task.images, image.index, task.fingerprint)
    path = f"{stem}.{extension}"
    places = [f"{stem}.{suffix}" for suffix in EXTENSIONS]
    if task.ordinal is None:
        path = f"{SUPERSEDED}/{stem}-{task.id}-{image.index}.{extension}"
        places = []

    while (
        found := await context.writer.join(
            context.manifest.images.place_all, Placement(image, path, file, context.clock.unix(), places)
        )
    ) is not None:
        if not gives_way(*found):
            raise Occupied(f"{context.folder.named(path)} belongs to another image of this job")
        await _step_aside(context, *found)
    return path


async def clear_leftovers(context: RunContext, task: TaskRecord, indices: Iterable[int]) -> None:
    """Move images aside that an earlier request of this cell left behind; `indices` are the images it has now.

    An edited request may yield fewer images: the extra files would look as if they belonged to the new ones.
    """
    if task.ordinal is None or not context.start.dropped:
        return
    first = task.paths[0]
    own = {image_path(task.paths, task.images, index, task.fingerprint) for index in indices}
    stems = {first, *(f"{first}-{index}" for index in range(1, MOST_IMAGES + 1))} - own
    paths = [f"{stem}.{extension}" for stem in sorted(stems) for extension in EXTENSIONS]

    for image in await context.writer.join(context.manifest.images.left_over, (task, paths), reads=True):
        await _step_aside(context, image, wanted=False)


async def blocking(context: RunContext, task: TaskRecord) -> str:
    """Return a file in the place of an image that would be bought; empty if there is none, or it could step aside."""
    while path := await in_the_way(context, task, range(1, task.images + 1)):
        if not await step_aside_earlier(context, path):
            break
    return path


async def step_aside_earlier(context: RunContext, path: str) -> bool:
    """Move a file that nobody owns to `SUPERSEDED` if it is an image of this job; return whether it was moved.

    Someone has put it back, or copied it, to a path that another image needs. It is identified by its hash: any other
    file is not ours, and stays.
    """
    folder = context.folder
    if await context.writer.do(context.manifest.images.owner, path) is not None:
        return False
    sha256 = await asyncio.to_thread(folder.sha256, path)
    image = None if sha256 is None else await context.writer.do(context.manifest.images.with_hash, sha256)
    if sha256 is None or image is None:
        return False
    suffix = PurePosixPath(path).suffix
    stem = f"{SUPERSEDED}/{path.removesuffix(suffix).removeprefix(f'{SUPERSEDED}/')}-{sha256[:8]}"
    aside = f"{stem}{suffix}"
    for number in itertools.count(2):
        if not await asyncio.to_thread(folder.existing, [aside]):
            break
        aside = f"{stem}-{number}{suffix}"
    if image.state is ImageState.MISSING:
        # The image is found again; a task that was planned again only for it is complete.
        await context.writer.do(context.manifest.upkeep.restore, image, path, context.clock.unix())
        await context.writer.do(context.manifest.upkeep.restore_complete, context.clock.unix())
        restored = (await context.writer.do(context.manifest.images.of_task, image.task))[image.index - 1]
        return await _relocate(context, restored, aside, restored.target)
    await asyncio.to_thread(folder.move, path, aside, sha256)
    context.control.emit(Event(EventKind.MOVED, f"{path} -> {aside}", {"old": path, "new": aside}))
    return True


async def in_the_way(context: RunContext, task: TaskRecord, indices: Iterable[int]) -> str:
    """Return a file at the path of one of the task's images that cannot be moved aside; empty if there is none.

    Images of this job that can be moved aside do not count, as long as they are unchanged: nothing else is ever moved.
    """
    stems = [image_path(task.paths, task.images, index, task.fingerprint) for index in indices]
    paths = [f"{stem}.{extension}" for stem in stems for extension in EXTENSIONS]
    folder = context.folder
    for path in folder.existing(paths) if folder.near else await asyncio.to_thread(folder.existing, paths):
        owner = await context.writer.do(context.manifest.images.owner, path)
        if owner is None:
            return path
        image = owner[0]
        if image.task == task.id:
            continue
        if not gives_way(*owner):
            return path
        result = await asyncio.to_thread(identical, folder, ExpectedFile.of(image))
        if result.wrong:
            await _record_missing(context, image, result)
            return path
    return ""


async def settle(context: RunContext) -> None:
    """Finish the moves that a killed run had started: the file is at its old path or at its new one."""
    for image in await context.writer.do(context.manifest.images.interrupted_moves):
        via = image.via or ""
        if await asyncio.to_thread(context.folder.sha256, via) == image.sha256:
            # The move may not be durable yet.
            await asyncio.to_thread(context.folder.end_move, image.path or via, via)
            # The job may have been edited, or the edit reverted, since the move began.
            task = await context.writer.do(context.manifest.tasks.get, image.task)
            right = home_of(task, image)
            target = None if task.ordinal is None or right == via else right
            await context.writer.do(
                context.manifest.images.relocate, image, via, target=target, now=context.clock.unix()
            )
        else:
            await context.writer.do(context.manifest.images.begin_move, image, None)


async def _step_aside(context: RunContext, image: ImageRecord, wanted: bool) -> None:  # noqa: FBT001 - as the manifest says
    path = image.path or ""
    suffix = PurePosixPath(path).suffix
    mark = f"{image.task}-{image.index}"
    if wanted:
        # It moves on to its own target later, which may be the old path of the image it makes room for.
        await _relocate(context, image, f"{STAGING}/{mark}{suffix}", image.target or path)
    else:
        await _relocate(context, image, f"{SUPERSEDED}/{path.removesuffix(suffix)}-{mark}{suffix}", None)


async def _relocate(context: RunContext, image: ImageRecord, path: str, target: str | None) -> bool:
    """Record the new path, rename the file, record that it is there; return whether it was there to be moved.

    Raise `Occupied`.
    """
    old = image.path or ""
    folder = context.folder
    result = await asyncio.to_thread(check_size, folder, ExpectedFile.of(image))
    if not result.wrong:
        await context.writer.do(context.manifest.images.begin_move, image, path)
        try:
            await asyncio.to_thread(folder.move, old, path, image.sha256 or "")
        except Occupied:
            await context.writer.do(context.manifest.images.begin_move, image, None)
            if await step_aside_earlier(context, path):
                return await _relocate(context, image, path, target)
            raise
        except Changed:
            await context.writer.do(context.manifest.images.begin_move, image, None)
            result = await asyncio.to_thread(identical, folder, ExpectedFile.of(image))
        else:
            await context.writer.do(
                context.manifest.images.relocate, image, path, target=target, now=context.clock.unix()
            )
            return True
    await _record_missing(context, image, result)
    return False


async def _record_missing(context: RunContext, image: ImageRecord, result: CheckResult) -> None:
    """Record that the file of a stored image is missing or changed; a changed file is not ours any more, and stays.

    A file that is missing here and may be on another machine stays as it is: that machine moves it.
    """
    if context.start.other_folders and not result.there:
        return
    path = image.path or ""
    why = f"{result.wrong}; {LEFT_ALONE}" if result.there else result.wrong
    await context.writer.do(
        context.manifest.images.move, image, ImageState.MISSING, why, context.clock.unix(), columns={"target": None}
    )
    context.record.stats.trouble += 1
    text = why if result.wrong.startswith(path) else f"{path}: {why}"
    if result.wrong == GONE:
        text = f"{path} was deleted or moved"
    context.control.emit(Event(EventKind.WARNING, text, {"path": path}))
