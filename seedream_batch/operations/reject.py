"""Reject images, so that they are bought again: the file is moved aside, and its task is planned again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import PurePosixPath

from seedream_batch.engine.manifest_checks import opened
from seedream_batch.engine.placement import SUPERSEDED
from seedream_batch.files.destination import Destination
from seedream_batch.files.open_destination import destination
from seedream_batch.manifest import Manifest, ManifestReader
from seedream_batch.manifest.db.connection import UNLIMITED
from seedream_batch.model.document import Json
from seedream_batch.model.job import Job
from seedream_batch.model.outcome import Polled
from seedream_batch.model.task import KNOWN_FOR, ImageRecord, ImageState, TaskRecord, TaskState, home_of
from seedream_batch.operations.resolve import NO_MORE, estimate
from seedream_batch.selection.picks import Picked


@dataclass(slots=True)
class Rejected:
    """The tasks that are planned again, and what was left alone: its path or fingerprint, and why."""

    tasks: list[TaskRecord] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    """Paths of the rejected files now, relative to the output folder."""
    left: list[str] = field(default_factory=list)
    unclear: int = 0
    """Tasks that a poll may still complete: they are not bought again before a poll was answered."""
    cost: int = 0
    """Estimated cost of the planned tasks in millionths of a USD."""


def reject_images(job: Job, rejected: Iterable[Picked], chooses: Callable[[Mapping[str, Json]], bool]) -> Rejected:
    """Plan the tasks of these images again, if `chooses` takes their cell; move the files to `superseded/`.

    A kill in between loses nothing: the next run moves back a file that is still stored, and repeating the command
    completes it. Raise `ManifestLocked`, `UsageError` or `StorageError`.
    """
    folder = destination(job)
    result = Rejected()
    with opened(job) as manifest:
        for fingerprint, group in _by_task(rejected):
            task = manifest.tasks.of_job(fingerprint)
            if task is None:
                result.left.append(f"{fingerprint[:12]}...: no such task in the job")
            elif not chooses(json.loads(task.cell)):
                continue
            elif task.state is not TaskState.SUCCEEDED:
                result.left.append(f"{task.paths[0]}: already {task.state}")
            else:
                _reject(manifest, folder, task, group, result)
    result.cost = estimate(job, result.tasks)
    return result


def short_tasks(job: Job, chooses: Callable[[Mapping[str, Json]], bool]) -> int:
    """Return how many of the chosen flagged tasks lack images that a poll may still bring."""
    with opened(job) as manifest:
        short = manifest.queue.short_of_images(time.time() - KNOWN_FOR)
        return sum(chooses(json.loads(manifest.tasks.get(number).cell)) for number in short)


def reject_flagged(
    job: Job, chooses: Callable[[Mapping[str, Json]], bool], polled: Mapping[int, Polled] | None
) -> Rejected:
    """Plan those tasks again whose result is not what was requested, and whose cell `chooses` takes.

    A task that lacks images is planned only if its last poll, in `polled` by task number, said that there are no more;
    with None, all are planned. All their files are moved to `superseded/`, since a new attempt yields another set.
    Raise `ManifestLocked`, `UsageError` or `StorageError`.
    """
    folder = destination(job)
    result = Rejected()
    with opened(job) as manifest:
        with ManifestReader(job.manifest) as reader:
            flagged = [entry.task for entry in reader.flagged(UNLIMITED)]
        short = set(manifest.queue.short_of_images(time.time() - KNOWN_FOR) if polled is not None else ())
        for task in flagged:
            if not chooses(json.loads(task.cell)):
                continue
            if polled is not None and task.id in short and polled.get(task.id) not in NO_MORE:
                result.unclear += 1
            else:
                stored = [image for image in manifest.images.of_task(task.id) if image.state is ImageState.STORED]
                picked = [Picked(task.fingerprint, image.index, image.sha256 or "") for image in stored]
                _reject(manifest, folder, task, picked, result)
    result.cost = estimate(job, result.tasks)
    return result


def _by_task(rejected: Iterable[Picked]) -> Iterator[tuple[str, list[Picked]]]:
    for fingerprint, group in groupby(sorted(rejected), lambda pick: pick.fingerprint):
        yield fingerprint, list(group)


def _reject(manifest: Manifest, folder: Destination, task: TaskRecord, picked: list[Picked], result: Rejected) -> None:
    """Move the files of one task aside, then plan it again, in one transaction."""
    images = {image.index: image for image in manifest.images.of_task(task.id)}
    if any(image.state is ImageState.ANNOUNCED for image in images.values()):
        result.left.append(f"{task.paths[0]}: an image is not downloaded yet; run first")
        return
    rejected = []
    for pick in picked:
        image = images.get(pick.index)
        why = _why_left(folder, image, pick)
        if image is None or why:
            result.left.append(f"{task.paths[0]}, image {pick.index}: {why}")
            continue
        home = home_of(task, image)
        if aside := _step_aside(manifest, folder, task, image, home):
            result.files.append(aside)
        rejected.append((manifest.images.of_task(task.id)[image.index - 1], home))
    if rejected:
        manifest.decisions.reject(task, rejected, time.time())
        result.tasks.append(task)


def _why_left(folder: Destination, image: ImageRecord | None, pick: Picked) -> str:
    """Return why an image is left alone; empty if it is the one that was rejected."""
    if image is None or image.state is not ImageState.STORED:
        return "not stored"
    if pick.sha256 and pick.sha256 != image.sha256:
        return "regenerated since it was rejected"
    places = [path for path in (image.path, image.via) if path and folder.existing([path])]
    if any(folder.sha256(path) != image.sha256 for path in places):
        return "the file was changed; move it away first"
    return ""


def _step_aside(manifest: Manifest, folder: Destination, task: TaskRecord, image: ImageRecord, home: str) -> str:
    """Move the file aside, recording each step first; return its new path, empty if it is missing."""
    suffix = PurePosixPath(home).suffix
    # The attempt makes the name unique, in case the next image is rejected as well.
    aside = f"{SUPERSEDED}/{home.removesuffix(suffix)}-{task.id}-{image.index}-{task.attempt}{suffix}"
    # An interrupted move left the file at its old path or at its new one.
    place = next((path for path in (image.path, image.via) if path and folder.existing([path])), "")
    if place and image.path != aside:
        manifest.images.begin_move(image, aside)
        if place == aside:
            # Moved already, by a command that was killed before that was durable.
            folder.end_move(image.path or aside, aside)
        else:
            folder.move(place, aside, image.sha256 or "")
        # The target is its old path: after a kill here the image is not rejected yet, and the next run moves it back.
        manifest.images.relocate(image, aside, target=home, now=time.time())
    return aside if place else ""
