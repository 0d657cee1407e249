"""Prune the files and rows of what the job no longer has; nothing is deleted that the manifest does not know."""

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
from seedream_batch.files.open_destination import destination
from seedream_batch.manifest import Manifest
from seedream_batch.manifest.maintenance_store import Dropped
from seedream_batch.model.job import Job
from seedream_batch.model.task import ImageRecord, ImageState, TaskRecord, TaskSpec

BATCH = 200
"""Tasks per transaction; their files are deleted before their rows."""


@dataclass(slots=True)
class Pruned:
    """What a job no longer has, and what of it was deleted; `bytes` in bytes."""

    found: Dropped
    done: bool
    """Whether files and rows were deleted, rather than only listed."""
    paths: list[str] = field(default_factory=list)
    """The files that were, or would be, deleted: all, or the first ones, as requested."""
    files: int = 0
    bytes: int = 0
    changed: list[str] = field(default_factory=list)
    """Files that are not what was stored: they stay, and belong to whoever changed them.

    Without deletion, only their type and size are compared.
    """
    unreadable: list[str] = field(default_factory=list)
    """Why files could not be read or deleted; their tasks stay as they are."""


def prune(job: Job, tasks: Iterable[TaskSpec], *, delete: bool, named: int | None) -> Pruned:
    """Find what the job no longer has, and with `delete` delete it.

    `tasks` are those of the job; `named` limits the paths in the result. Raise `ManifestLocked`, `InvalidJob`,
    `UsageError` or `StorageError`.
    """
    folder = destination(job)
    with opened(job) as manifest:
        elsewhere = has_other_folders(manifest, job)
        with manifest.group() if delete else manifest.rolled_back():
            manifest.sync_job(tasks, time.time())
            pruned = Pruned(manifest.upkeep.dropped(), done=delete)
            if not delete:
                _prune_batches(manifest, folder, pruned, named, elsewhere=elsewhere)
        if delete:
            _prune_batches(manifest, folder, pruned, named, elsewhere=elsewhere)
            manifest.upkeep.prune_never_sent()
            folder.drop_if_empty(SUPERSEDED)
        return pruned


def _prune_batches(
    manifest: Manifest, folder: Destination, pruned: Pruned, named: int | None, *, elsewhere: bool
) -> None:
    """Delete in batches: first the files, then, once that is durable, the rows."""
    after = 0
    while batch := manifest.upkeep.to_prune(after, BATCH):
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
                # The task stays until that is fixed; the next time, its files deleted so far are found missing.
                pruned.unreadable.append(str(error))
            else:
                cleared.append(task)
        if pruned.done:
            folder.settle(emptied)
            manifest.upkeep.prune(cleared, time.time())


def _prune_image(
    manifest: Manifest, folder: Destination, image: ImageRecord, pruned: Pruned, named: int | None
) -> list[str]:
    """Delete the file of an image if it is what was stored; return the paths that are free of it now."""
    emptied = []
    # An interrupted move left the file at its old path or at its new one.
    for path in dict.fromkeys(path for path in (image.path, image.via) if path):
        owner = manifest.images.owner(path)
        if owner is not None and (owner[0].task, owner[0].index) != (image.task, image.index):
            continue
        recorded = ExpectedFile.of(image, path)
        result = check(folder, recorded, deep=False) if pruned.done else check_size(folder, recorded)
        if result.there and result.wrong:
            if image.state is ImageState.STORED and path == image.path:
                pruned.changed.append(path)
            continue
        if pruned.done:
            emptied.append(path)
        if not result.there or not (pruned.done or image.state is ImageState.STORED):
            continue
        if pruned.done:
            folder.unlink(path)
        pruned.files += 1
        pruned.bytes += image.bytes or 0
        if named is None or len(pruned.paths) < named:
            pruned.paths.append(path)
    return emptied
