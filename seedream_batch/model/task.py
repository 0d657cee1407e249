"""A task, its images and the states they pass through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import PurePosixPath


class TaskState(StrEnum):
    """What is known of a task; `EDGES` says where it may go from there."""

    PLANNED = "planned"
    """Nothing was sent, or provably nothing was executed."""
    SUBMITTING = "submitting"
    """The intent and its key are committed, no answer is."""
    ACCEPTED = "accepted"
    """The service's task id is stored."""
    SUCCEEDED = "succeeded"
    """The URLs of the images are stored."""
    FAILED = "failed"
    """A definite no: refused, or failed by the service and refunded."""
    LOST = "lost"
    """The service does not know the task id, or the task's deadline passed."""
    UNCERTAIN = "uncertain"
    """Perhaps executed and paid; the task id is not known."""


class ImageState(StrEnum):
    """What is known of one image of a succeeded task. A download under way is no state."""

    ANNOUNCED = "announced"
    """A URL is known."""
    STORED = "stored"
    """The verified file stands under its final name."""
    REJECTED = "rejected"
    """The bytes were bad, and the tries are spent."""
    EXPIRED = "expired"
    """No URL that still works could be had."""
    MISSING = "missing"
    """It was stored, and the file is gone or changed."""


EDGES: Mapping[TaskState, frozenset[TaskState]] = {
    # Back to succeeded: the files that were to be made anew came back before that was paid for.
    TaskState.PLANNED: frozenset({TaskState.SUBMITTING, TaskState.SUCCEEDED}),
    TaskState.SUBMITTING: frozenset({TaskState.ACCEPTED, TaskState.PLANNED, TaskState.FAILED, TaskState.UNCERTAIN}),
    TaskState.ACCEPTED: frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.LOST}),
    # Only a person takes this way: to make anew what is not there any more, or to give up what the job dropped.
    TaskState.SUCCEEDED: frozenset({TaskState.PLANNED}),
    TaskState.FAILED: frozenset({TaskState.PLANNED}),
    # Back to accepted: polling again is free, and may find what was paid for.
    TaskState.LOST: frozenset({TaskState.ACCEPTED, TaskState.PLANNED}),
    TaskState.UNCERTAIN: frozenset({TaskState.ACCEPTED, TaskState.PLANNED, TaskState.FAILED}),
}
"""Every move a task may make. The manifest refuses any other."""

IMAGE_EDGES: Mapping[ImageState, frozenset[ImageState]] = {
    ImageState.ANNOUNCED: frozenset({ImageState.STORED, ImageState.REJECTED, ImageState.EXPIRED}),
    ImageState.STORED: frozenset({ImageState.MISSING}),
    ImageState.REJECTED: frozenset({ImageState.ANNOUNCED}),
    ImageState.EXPIRED: frozenset({ImageState.ANNOUNCED}),
    ImageState.MISSING: frozenset({ImageState.ANNOUNCED, ImageState.STORED}),
}
"""Every move an image may make."""

KNOWN_FOR = 7 * 86_400.0
"""Seconds after its submission for which a service may know a task; no page says how long it does."""

NOT_THERE = (ImageState.REJECTED, ImageState.EXPIRED, ImageState.MISSING)
"""The states of an image that was delivered and is not in the folder."""

SAME_BYTES = "the same bytes as "
"""How the warning of an image begins whose bytes another image has, too."""

PRUNED = "its images were pruned"
"""The reason of a task that a person pruned: should the job ask for it again, it is made anew."""


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """One task as the job asks for it.

    `body` is the final request as JSON text; a local reference image stands in it as `sha256:HEX` until it is
    sent. `images` is how many images the service is asked (and pre-charged) for. `paths` are relative to the
    output folder and bear no extension: one for each image where the job's template uses `index`, else one.
    `cell` is a JSON object of axis values. `price` is the estimate for one image in millionths of a USD.
    """

    fingerprint: str
    ordinal: int
    sample: int
    body: str
    images: int
    paths: tuple[str, ...]
    cell: str
    model: str
    size: str
    resolution: str
    price: int

    @property
    def earlier(self) -> tuple[tuple[str, str], ...]:
        """The body and fingerprint of each other request that earlier versions may have made of the same text."""
        return ()


class RereadTask(TaskSpec):
    """A task whose text earlier versions read otherwise."""

    __slots__ = ("_earlier",)
    _earlier: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, spec: TaskSpec, earlier: tuple[tuple[str, str], ...]) -> RereadTask:
        """The task, with what earlier versions may have made of it."""
        made = cls(**{one.name: getattr(spec, one.name) for one in fields(spec)})
        object.__setattr__(made, "_earlier", earlier)
        return made

    @property
    def earlier(self) -> tuple[tuple[str, str], ...]:
        """The body and fingerprint of each other request that earlier versions may have made of the same text."""
        return getattr(self, "_earlier", ())  # a copy with another field has none


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One task as the manifest knows it; times are unix seconds, money millionths of a USD.

    `ordinal` is None when the job no longer asks for it. The service may answer one submission with several
    task ids; the task has ended when they all have. `attempt` counts the keys used so far and `failures`
    the attempts that the service failed. `held` marks an uncertain task that only a person may decide.
    """

    id: int
    fingerprint: str
    ordinal: int | None
    sample: int
    state: TaskState
    body: str
    images: int
    paths: tuple[str, ...]
    cell: str
    model: str
    size: str
    resolution: str
    price: int
    attempt: int
    failures: int
    not_before: float
    task_ids: tuple[str, ...]
    submitted_at: float | None
    deadline: float | None
    cost: int | None
    code: str
    reason: str
    held: bool
    updated_at: float
    warning: str = ""
    """Why the result is not what was requested, empty if it is."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image as the manifest knows it; `index` counts from 1, `path` is relative to the output folder.

    `sha256`, `bytes`, `width`, `height` and `format` are known from just before the file gets its final name.
    `target` is where the file has to move, because the job's output path changed, and `via` where it is being moved to
    right now.
    """

    task: int
    index: int
    state: ImageState
    url: str
    expires_at: float | None
    path: str | None
    target: str | None
    bytes: int | None
    sha256: str | None
    width: int | None
    height: int | None
    format: str | None
    tries: int
    reason: str
    via: str | None = None
    warning: str = ""
    """Why the stored file is not what was requested, empty if it is."""


def may_be_known(task: TaskRecord, now: float) -> bool:
    """Whether a poll of a lost task may find it again, at `now` (unix seconds)."""
    return bool(task.task_ids) and now - (task.submitted_at or 0.0) < KNOWN_FOR


def image_path(paths: tuple[str, ...], images: int, index: int, fingerprint: str) -> str:
    """The path, without an extension, of image `index` (from 1) of a task that asks for `images`.

    A task of one image has the bare path; of several, each gets `-1`, `-2`, ... unless the template used
    `index` and so gave a path for each. More images than were asked for are numbered on, with a part of the
    fingerprint, so that no other task can want the name.
    """
    if index > images:
        return f"{paths[-1]}-{index}-{fingerprint[:8]}"
    if len(paths) > 1:
        return paths[index - 1]
    if images == 1:
        return paths[0]
    return f"{paths[0]}-{index}"


def home_of(task: TaskRecord | TaskSpec, image: ImageRecord) -> str:
    """The path where the job wants a stored image, with the extension that its file has now."""
    stem = image_path(task.paths, task.images, image.index, task.fingerprint)
    return stem + PurePosixPath(image.path or "").suffix


@dataclass(frozen=True, slots=True)
class Totals:
    """What all attempts cost, and what is held for those whose cost is not known; money in millionths of a USD."""

    reserved_images: int = 0
    reserved: int = 0
    images: int = 0
    cost: int = 0
