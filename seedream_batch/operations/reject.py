"""Buying anew what a person looked at and rejected: the file steps aside, and its task is planned again."""

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
from seedream_batch.files.open import destination
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
    """The tasks that are planned again; what was left alone, by its path or fingerprint, and why."""

    tasks: list[TaskRecord] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    """Where the rejected files are now, relative to the output folder."""
    left: list[str] = field(default_factory=list)
    unclear: int = 0
    """Tasks that a poll may still complete: they are not bought again before one was answered."""
    cost: int = 0
    """What the planned tasks will cost, by what is known now, in millionths of a USD."""


def reject_images(job: Job, rejected: Iterable[Picked], chooses: Callable[[Mapping[str, Json]], bool]) -> Rejected:
    """Plans the tasks of these images again, those whose cell `chooses` takes; the files go to `superseded/`.

    A kill in between loses nothing: a file that has stepped aside and is still stored goes back with the next run, and
    giving the command again goes on. Raises `ManifestLocked`, `StorageError`.
    """
    folder = destination(job)
    found = Rejected()
    with opened(job) as manifest:
        for fingerprint, group in _by_task(rejected):
            task = manifest.of_job(fingerprint)
            if task is None:
                found.left.append(f"{fingerprint[:12]}...: the job has no such task")
            elif not chooses(json.loads(task.cell)):
                continue
            elif task.state is not TaskState.SUCCEEDED:
                found.left.append(f"{task.paths[0]}: it is {task.state} already")
            else:
                _reject(manifest, folder, task, group, found)
    found.cost = estimate(job, found.tasks)
    return found


def short_tasks(job: Job, chooses: Callable[[Mapping[str, Json]], bool]) -> int:
    """Return how many of the chosen flagged tasks lack images that a poll may still bring."""
    with opened(job) as manifest:
        short = manifest.short_of_images(time.time() - KNOWN_FOR)
        return sum(chooses(json.loads(manifest.task(number).cell)) for number in short)


def reject_flagged(
    job: Job, chooses: Callable[[Mapping[str, Json]], bool], polled: Mapping[int, Polled] | None
) -> Rejected:
    """Plan those tasks again whose result is not what was requested, and whose cell `chooses` takes.

    One that lacks images is planned only if its last poll, in `polled` by its number, said that there are no more;
    with None, all are. All their files go to `superseded/`: what a new attempt brings is another set. Raises as
    `reject_images` does.
    """
    folder = destination(job)
    found = Rejected()
    with opened(job) as manifest:
        with ManifestReader(job.manifest) as reader:
            flagged = [one.task for one in reader.flagged(UNLIMITED)]
        short = set(manifest.short_of_images(time.time() - KNOWN_FOR) if polled is not None else ())
        for task in flagged:
            if not chooses(json.loads(task.cell)):
                continue
            if polled is not None and task.id in short and polled.get(task.id) not in NO_MORE:
                found.unclear += 1
            else:
                stored = [image for image in manifest.images(task.id) if image.state is ImageState.STORED]
                picked = [Picked(task.fingerprint, image.index, image.sha256 or "") for image in stored]
                _reject(manifest, folder, task, picked, found)
    found.cost = estimate(job, found.tasks)
    return found


def _by_task(rejected: Iterable[Picked]) -> Iterator[tuple[str, list[Picked]]]:
    for fingerprint, group in groupby(sorted(rejected), lambda one: one.fingerprint):
        yield fingerprint, list(group)


def _reject(manifest: Manifest, folder: Destination, task: TaskRecord, picked: list[Picked], found: Rejected) -> None:
    """Brings the files of one task out of the way, then notes in one transaction that it is made anew."""
    images = {image.index: image for image in manifest.images(task.id)}
    if any(image.state is ImageState.ANNOUNCED for image in images.values()):
        found.left.append(f"{task.paths[0]}: an image of it is not fetched yet; run first")
        return
    gone = []
    for one in picked:
        image = images.get(one.index)
        why = _kept(folder, image, one)
        if image is None or why:
            found.left.append(f"{task.paths[0]}, image {one.index}: {why}")
            continue
        home = home_of(task, image)
        if aside := _step_aside(manifest, folder, task, image, home):
            found.files.append(aside)
        gone.append((manifest.images(task.id)[image.index - 1], home))
    if gone:
        manifest.reject(task, gone, time.time())
        found.tasks.append(task)


def _kept(folder: Destination, image: ImageRecord | None, one: Picked) -> str:
    """Why an image is left alone; empty if it is the one that was rejected."""
    if image is None or image.state is not ImageState.STORED:
        return "it is not stored"
    if one.sha256 and one.sha256 != image.sha256:
        return "it is another picture by now than the one that was rejected"
    places = [path for path in (image.path, image.via) if path and folder.existing([path])]
    if any(folder.sha256(path) != image.sha256 for path in places):
        return "its file was changed; move it away first"
    return ""


def _step_aside(manifest: Manifest, folder: Destination, task: TaskRecord, image: ImageRecord, home: str) -> str:
    """Moves the file, each step noted before it is done; where it is now, empty if it is gone."""
    suffix = PurePosixPath(home).suffix
    # The attempt makes the name a new one, should the picture that comes instead be rejected as well.
    aside = f"{SUPERSEDED}/{home.removesuffix(suffix)}-{task.id}-{image.index}-{task.attempt}{suffix}"
    # A move that was cut off left the file at its old place or at its new one.
    place = next((path for path in (image.path, image.via) if path and folder.existing([path])), "")
    if place and image.path != aside:
        manifest.begin_move(image, aside)
        if place == aside:
            # Moved already, by a command that was cut off before it was on the disk.
            folder.end_move(image.path or aside, aside)
        else:
            folder.move(place, aside, image.sha256 or "")
        # With the way back: stopped right here, the picture is not rejected yet, and the next run brings it home.
        manifest.relocate(image, aside, target=home, now=time.time())
    return aside if place else ""
