"""Files that have to move: because the output path changed, or because another picture takes their place."""

from __future__ import annotations

import asyncio
from pathlib import PurePosixPath

from seedream_batch.files.folder import Occupied
from seedream_batch.model.task import ImageRecord, ImageState, TaskRecord
from seedream_batch.run.context import Context, Event, EventKind, StopReason

SUPERSEDED = "superseded"
"""The folder, inside the output folder, for pictures that the job no longer asks for and whose place is taken."""

_EXTENSIONS = (".jpg", ".png")


async def move_files(context: Context) -> None:
    """Moves every stored file whose path in the job changed. What stands in the way steps aside first."""
    waiting = await context.writer.do(lambda m: m.moving())
    for image in waiting:
        # A file that had to step aside for another one has a new place by now.
        current = (await context.writer.do(lambda m, task=image.task: m.images(task)))[image.index - 1]  # type: ignore[misc]
        target = current.target
        if target is None or current.state is not ImageState.STORED:
            continue
        try:
            await _free(context, target)
            await _relocate(context, current, target, None)
        except Occupied as error:
            context.stats.trouble += 1
            context.stop_submitting(StopReason.STORAGE, str(error))
        else:
            context.stats.moved += 1
            context.emit(Event(EventKind.MOVED, f"{current.path} -> {target}", {"old": current.path, "new": target}))


async def make_room(context: Context, task: TaskRecord, path: str) -> None:
    """Moves pictures of this job that have the place of a new one aside: those that it no longer asks for.

    A picture of the same stem in the other format goes, too, or an old and a new one would stand side by side.
    """
    stem = path.removesuffix(PurePosixPath(path).suffix)
    for extension in _EXTENSIONS:
        found = await context.writer.do(lambda m, name=stem + extension: m.owner(name))  # type: ignore[misc]
        if found is not None and found[0].task != task.id and (not found[1] or stem + extension == path):
            await _step_aside(context, *found)


async def _free(context: Context, path: str) -> None:
    found = await context.writer.do(lambda m: m.owner(path))
    if found is not None:
        await _step_aside(context, *found)


async def _step_aside(context: Context, image: ImageRecord, wanted: bool) -> None:  # noqa: FBT001 - from one call
    path = image.path or ""
    suffix = PurePosixPath(path).suffix
    mark = f"{image.task}-{image.index}"
    if wanted:
        # It will move on to its own target, which may be the place of the one it makes room for.
        await _relocate(context, image, f".seedream-moving/{mark}{suffix}", image.target or path)
    else:
        await _relocate(context, image, f"{SUPERSEDED}/{path.removesuffix(suffix)}-{mark}{suffix}", None)


async def _relocate(context: Context, image: ImageRecord, path: str, target: str | None) -> None:
    """Renames the file, then says so; a run that is killed in between finds the file by its hash."""
    old = image.path or ""
    folder = context.folder
    if await asyncio.to_thread(folder.exists, old):
        await asyncio.to_thread(folder.move, old, path)
    elif await asyncio.to_thread(folder.sha256, path) != image.sha256:
        why = f"{old} is gone"
        await context.writer.do(lambda m: m.move_image(image, ImageState.MISSING, why, context.clock(), target=None))
        context.emit(Event(EventKind.WARNING, why, {"path": old}))
        return
    await context.writer.do(lambda m: m.relocate(image, path, target=target, now=context.clock()))
