"""Pruning: the files and rows of what the job no longer has. Nothing goes that the manifest does not know."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from seedream_batch.engine.job_identity import has_other_folders, on_another_machine
from seedream_batch.engine.manifest_checks import opened
from seedream_batch.engine.placement import SUPERSEDED
from seedream_batch.errors import StorageError
from seedream_batch.files.destination import Destination
from seedream_batch.files.integrity import ExpectedFile, check, check_size
from seedream_batch.files.open import destination
from seedream_batch.manifest import Manifest
from seedream_batch.manifest.maintenance_store import Dropped
from seedream_batch.model.job import Job
from seedream_batch.model.task import ImageRecord, ImageState, TaskRecord, TaskSpec

BATCH = 200
"""Tasks whose files go before their rows do, in one transaction."""


@dataclass(slots=True)
class Pruned:
    """What a job no longer has, and what of it was deleted; `bytes` in bytes."""

    found: Dropped
    done: bool
    """Whether anything was to be deleted, and not only shown."""
    paths: list[str] = field(default_factory=list)
    """The files that were deleted, or would be; all of them, or the first, as was asked for."""
    files: int = 0
    bytes: int = 0
    changed: list[str] = field(default_factory=list)
    """Files that are not what was stored: they stay, and belong to whoever changed them.

    Before anything is deleted, only their type and size are compared."""
    unreadable: list[str] = field(default_factory=list)
    """Why files could not be read or deleted; their tasks stay as they are."""


def prune(job: Job, tasks: Iterable[TaskSpec], *, delete: bool, named: int | None) -> Pruned:
    """Finds what the job no longer has, and with `delete` deletes it; else nothing changes.

    `tasks` are those of the job; `named` bounds the paths in the result. Raises `ManifestLocked`, `InvalidJob`,
    `UsageError`, `StorageError`.
    """
    folder = destination(job)
    with opened(job) as manifest:
        elsewhere = has_other_folders(manifest, job)
        with manifest.group() if delete else manifest.taken_back():
            manifest.enter(tasks, time.time())
            pruned = Pruned(manifest.dropped(), done=delete)
            if not delete:
                _go_through(manifest, folder, pruned, named, elsewhere=elsewhere)
        if delete:
            _go_through(manifest, folder, pruned, named, elsewhere=elsewhere)
            manifest.prune_never_sent()
            folder.drop_if_empty(SUPERSEDED)
        return pruned


def _go_through(manifest: Manifest, folder: Destination, pruned: Pruned, named: int | None, *, elsewhere: bool) -> None:
    """Batch by batch: first the files, then, once they are surely gone, the rows."""
    after = 0
    while batch := manifest.to_prune(after, BATCH):
        after = batch[-1][0].id
        cleared: list[TaskRecord] = []
        emptied: list[str] = []
        for task, images in batch:
            try:
                for image in images:
                    if elsewhere and image.state is ImageState.STORED and not folder.existing([image.path or ""]):
                        on_another_machine(image.path)
                for image in images:
                    emptied += _prune_image(manifest, folder, image, pruned, named)
            except StorageError as error:
                # The task stays until that is mended; what of it went already is seen to be gone by the next time.
                pruned.unreadable.append(str(error))
            else:
                cleared.append(task)
        if pruned.done:
            folder.settle(emptied)
            manifest.prune(cleared, time.time())


def _prune_image(
    manifest: Manifest, folder: Destination, image: ImageRecord, pruned: Pruned, named: int | None
) -> list[str]:
    """Deletes the file of an image if it is what was stored; the paths where it is not any more."""
    gone = []
    # A move that was cut off left the file at its old place or at its new one.
    for path in dict.fromkeys(path for path in (image.path, image.via) if path):
        owner = manifest.owner(path)
        if owner is not None and (owner[0].task, owner[0].index) != (image.task, image.index):
            continue
        recorded = ExpectedFile.of(image, path)
        found = check(folder, recorded, deep=False) if pruned.done else check_size(folder, recorded)
        if found.there and found.wrong:
            if image.state is ImageState.STORED and path == image.path:
                pruned.changed.append(path)
            continue
        if pruned.done:
            gone.append(path)
        if not found.there or not (pruned.done or image.state is ImageState.STORED):
            continue
        if pruned.done:
            folder.unlink(path)
        pruned.files += 1
        pruned.bytes += image.bytes or 0
        if named is None or len(pruned.paths) < named:
            pruned.paths.append(path)
    return gone
