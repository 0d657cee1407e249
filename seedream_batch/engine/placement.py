"""Where files go: the place of a new picture, and moves of those whose place in the job changed."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import PurePosixPath

from seedream_batch.engine.context import Context
from seedream_batch.engine.events import Event, EventKind, StopReason
from seedream_batch.errors import StorageError
from seedream_batch.files.destination import Destination
from seedream_batch.files.image_inspection import FORMATS
from seedream_batch.files.integrity import GONE, Found, Recorded, glance, identical
from seedream_batch.files.local_folder import Changed, Occupied
from seedream_batch.manifest import Manifest
from seedream_batch.manifest.image_store import StoredFile
from seedream_batch.model.task import ImageRecord, ImageState, TaskRecord, home_of, image_path

SUPERSEDED = "superseded"
"""The folder, inside the output folder, for pictures that the job no longer asks for and whose place is taken."""

STAGING = ".seedream-moving"
"""The hidden folder for files that wait there until what stands in their new place has moved on."""

MOST_IMAGES = 15
"""Images that one task may have [Seedream 4.5 API documentation]."""

EXTENSIONS = tuple(extension for extension, _ in FORMATS.values())

PAGE = 256
"""Missing images that are looked for together."""

LEFT_ALONE = "it was left alone"


async def move_files(context: Context) -> None:
    """Moves every stored file whose path in the job changed. What stands in the way steps aside first."""
    await settle(context)
    await _find_missing(context)
    async for image in _moving(context):
        # A file that had to step aside for another one has a new place by now.
        current = (await context.writer.do(Manifest.images, image.task))[image.index - 1]
        target = current.target
        if target is None or current.state is not ImageState.STORED:
            continue
        try:
            moved = await _move_home(context, current, target)
        except Occupied as error:
            context.stats.trouble += 1
            context.stop_submitting(StopReason.STORAGE, str(error))
        else:
            if moved:
                context.stats.moved += 1
                told = {"old": current.path, "new": target}
                context.emit(Event(EventKind.MOVED, f"{current.path} -> {target}", told))
    # The last move takes it away, but for a kill right before that.
    await asyncio.to_thread(context.folder.drop_if_empty, STAGING)


async def _move_home(context: Context, image: ImageRecord, target: str) -> bool:
    """Moves one stored file to its place in the job; whether it is there now. Raises `Occupied`."""
    place, found = await find(context, image, glance)
    if place is None:
        await _missing(context, image, found)
        return False
    if place == target:
        # Whoever edited the path may have moved the file as well.
        return await context.writer.do(Manifest.take_back, image, target, context.clock())
    owner = await context.writer.do(Manifest.owner, target)
    if owner is not None:
        await _step_aside(context, *owner)
    return await _relocate(context, image, target, None)


async def _find_missing(context: Context) -> None:
    """Takes back the files of missing images that are whole again, at their old place or at the one in the job."""
    after = (0, 0)
    back = 0
    while page := await context.writer.do(Manifest.to_look_for, after, PAGE):
        for image in page:
            try:
                place, _ = await find(context, image, identical)
            except StorageError:
                # Nothing is known of the file, so it stays missing; `verify` tells why.
                continue
            if place is not None:
                back += await context.writer.do(Manifest.take_back, image, place, context.clock())
        after = (page[-1].task, page[-1].index)
    if back:
        await context.writer.do(Manifest.whole_again, context.clock())


Look = Callable[[Destination, Recorded], Found]


async def find(context: Context, image: ImageRecord, look: Look) -> tuple[str | None, Found]:
    """Where the file of an image is, at its path or at its place in the job, as far as `look` can tell.

    Where it is at neither, what is wrong; `there` then means that another file is at its place in the job.
    """
    path = image.path or ""

    async def see(place: str) -> Found:
        if await context.writer.do(Manifest.belongs_to_another, image, place):
            return Found(there=False, wrong=GONE)
        return await asyncio.to_thread(look, context.folder, Recorded.of(image, place))

    found = await see(path)
    if not found.wrong:
        return path, found
    task = await context.writer.do(Manifest.task, image.task)
    home = home_of(task, image)
    if task.ordinal is None or home == path:
        return None, found
    # Only the very picture is taken for it at a place where it was never put.
    if look is glance:
        look = identical
    at_home = await see(home)
    if not at_home.wrong:
        return home, at_home
    if at_home.there:
        return None, dataclasses.replace(at_home, wrong=f"{home}: {at_home.wrong}")
    told = f"{path}: {found.wrong}; {LEFT_ALONE}" if found.there else found.wrong
    return None, Found(there=False, wrong=told)


async def _moving(context: Context) -> AsyncIterator[ImageRecord]:
    """The stored images whose file has to move, read a few at a time: an edited path may move a million."""
    after = (0, 0)
    while page := await context.writer.do(Manifest.moving, after):
        for image in page:
            yield image
        after = (page[-1].task, page[-1].index)


async def assign_place(context: Context, task: TaskRecord, image: ImageRecord, file: StoredFile, extension: str) -> str:
    """The path of a new picture, noted as its own; raises `Occupied` when another one that stays has it.

    Pictures that the job no longer asks for step aside, also one of the same stem in the other format: an old and a
    new one would stand side by side. A picture that the job stopped asking for while it was made never takes a place.
    """
    stem = image_path(task.paths, task.images, image.index, task.fingerprint)
    path = f"{stem}.{extension}"
    places = [f"{stem}.{one}" for one in EXTENSIONS]
    if task.ordinal is None:
        path = f"{SUPERSEDED}/{stem}-{task.id}-{image.index}.{extension}"
        places = []

    def note(manifest: Manifest) -> tuple[ImageRecord, bool] | None:
        """Notes the path, or gives the picture that is in its way."""
        for found in manifest.owners(places):
            if found[0].task != task.id and (_gives_way(*found) or found[0].path == path):
                return found
        manifest.placing(image, path, file, context.clock())
        return None

    while (found := await context.writer.do(note)) is not None:
        if not _gives_way(*found):
            raise Occupied(f"{context.folder.named(path)} belongs to another picture of this job")
        await _step_aside(context, *found)
    return path


async def clear_leftovers(context: Context, task: TaskRecord, indices: Iterable[int]) -> None:
    """Images that the task's place had before its request was edited step aside; `indices` are those that it has now.

    An edit may lead to fewer images: those left over would stand beside the new ones as if they belonged to them.
    """
    if task.ordinal is None:
        return
    first = task.paths[0]
    own = {image_path(task.paths, task.images, index, task.fingerprint) for index in indices}
    stems = {first, *(f"{first}-{index}" for index in range(1, MOST_IMAGES + 1))} - own
    paths = [f"{stem}.{one}" for stem in sorted(stems) for one in EXTENSIONS]

    def left_over(manifest: Manifest) -> list[ImageRecord]:
        found = [image for image, wanted in manifest.owners(paths) if not wanted and image.task != task.id]
        return [image for image in found if manifest.task(image.task).paths[0] == first]

    for image in await context.writer.do(left_over):
        await _step_aside(context, image, wanted=False)


def _gives_way(image: ImageRecord, wanted: bool) -> bool:  # noqa: FBT001 - as the manifest says
    return not wanted or image.target is not None


async def blocking(context: Context, task: TaskRecord) -> str:
    """Return a file in the place of an image that would be bought; empty if there is none, or it could step aside."""
    while path := await in_the_way(context, task, range(1, task.images + 1)):
        if not await step_aside_earlier(context, path):
            break
    return path


async def step_aside_earlier(context: Context, path: str) -> bool:
    """Move a file that nobody owns to `superseded/` if it is a picture of this job; return whether it was moved.

    Somebody has put it back, or copied it, to a place that is wanted for another one. Its bytes tell: any other file
    is not ours, and stays.
    """
    folder = context.folder
    if await context.writer.do(Manifest.owner, path) is not None:
        return False
    sha256 = await asyncio.to_thread(folder.sha256, path)
    image = None if sha256 is None else await context.writer.do(Manifest.picture_of, sha256)
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
        # The manifest knows again where it is; a task that was to be made again for it is whole.
        await context.writer.do(Manifest.take_back, image, path, context.clock())
        await context.writer.do(Manifest.whole_again, context.clock())
        back = (await context.writer.do(Manifest.images, image.task))[image.index - 1]
        return await _relocate(context, back, aside, back.target)
    await asyncio.to_thread(folder.move, path, aside, sha256)
    context.emit(Event(EventKind.MOVED, f"{path} -> {aside}", {"old": path, "new": aside}))
    return True


async def in_the_way(context: Context, task: TaskRecord, indices: Iterable[int]) -> str:
    """A file in the place of an image of a task that will not make room for it; empty if there is none.

    Pictures of this job that step aside are none, as long as they are what was stored: nothing else is ever moved.
    """
    stems = [image_path(task.paths, task.images, index, task.fingerprint) for index in indices]
    paths = [f"{stem}.{one}" for stem in stems for one in EXTENSIONS]
    folder = context.folder
    for path in folder.existing(paths) if folder.near else await asyncio.to_thread(folder.existing, paths):
        owner = await context.writer.do(Manifest.owner, path)
        if owner is None:
            return path
        image = owner[0]
        if image.task == task.id:
            continue
        if not _gives_way(*owner):
            return path
        found = await asyncio.to_thread(identical, folder, Recorded.of(image))
        if found.wrong:
            await _missing(context, image, found)
            return path
    return ""


async def settle(context: Context) -> None:
    """Ends the moves that a killed run had begun: the file is at its old place or at its new one."""
    for image in await context.writer.do(Manifest.under_way):
        via = image.via or ""
        if await asyncio.to_thread(context.folder.sha256, via) == image.sha256:
            # The move may not be on the disk yet.
            await asyncio.to_thread(context.folder.end_move, image.path or via, via)
            # Where it belongs by now: the job may have been edited, or the edit taken back, since the move began.
            task = await context.writer.do(Manifest.task, image.task)
            right = home_of(task, image)
            target = None if task.ordinal is None or right == via else right
            await context.writer.do(
                Manifest.relocate,
                image,
                via,
                target=target,
                now=context.clock(),
            )
        else:
            await context.writer.do(Manifest.heading, image, None)


async def _step_aside(context: Context, image: ImageRecord, wanted: bool) -> None:  # noqa: FBT001 - as the manifest says
    path = image.path or ""
    suffix = PurePosixPath(path).suffix
    mark = f"{image.task}-{image.index}"
    if wanted:
        # It will move on to its own target, which may be the place of the one it makes room for.
        await _relocate(context, image, f"{STAGING}/{mark}{suffix}", image.target or path)
    else:
        await _relocate(context, image, f"{SUPERSEDED}/{path.removesuffix(suffix)}-{mark}{suffix}", None)


async def _relocate(context: Context, image: ImageRecord, path: str, target: str | None) -> bool:
    """Notes where the file goes, renames it, notes that it is there; whether it was there to be moved.

    Raises `Occupied`.
    """
    old = image.path or ""
    folder = context.folder
    found = await asyncio.to_thread(glance, folder, Recorded.of(image))
    if not found.wrong:
        await context.writer.do(Manifest.heading, image, path)
        try:
            await asyncio.to_thread(folder.move, old, path, image.sha256 or "")
        except Occupied:
            await context.writer.do(Manifest.heading, image, None)
            if await step_aside_earlier(context, path):
                return await _relocate(context, image, path, target)
            raise
        except Changed:
            await context.writer.do(Manifest.heading, image, None)
            found = await asyncio.to_thread(identical, folder, Recorded.of(image))
        else:
            await context.writer.do(Manifest.relocate, image, path, target=target, now=context.clock())
            return True
    await _missing(context, image, found)
    return False


async def _missing(context: Context, image: ImageRecord, found: Found) -> None:
    """Notes that the file of a stored image is gone or changed; what is there instead is not ours, and stays.

    One that is on another machine stays as it is: that one moves it.
    """
    if context.other_folders and not found.there:
        return
    path = image.path or ""
    why = f"{found.wrong}; {LEFT_ALONE}" if found.there else found.wrong
    await context.writer.do(
        Manifest.move_image, image, ImageState.MISSING, why, context.clock(), columns={"target": None}
    )
    context.stats.trouble += 1
    told = why if found.wrong.startswith(path) else f"{path}: {why}"
    if found.wrong == GONE:
        told = f"{path} is gone"
    context.emit(Event(EventKind.WARNING, told, {"path": path}))
