"""A task, its images, and their states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import PurePosixPath


class TaskState(StrEnum):
    """What is known about a task; `EDGES` lists the allowed transitions."""

    PLANNED = "planned"
    """Nothing was sent, or provably nothing was executed."""
    SUBMITTING = "submitting"
    """The intent and its key are committed; there is no answer yet."""
    ACCEPTED = "accepted"
    """The service's task id is stored."""
    SUCCEEDED = "succeeded"
    """The URLs of the images are stored."""
    FAILED = "failed"
    """Definitely not delivered: refused, or failed by the service and refunded."""
    LOST = "lost"
    """The service does not know the task id, or the task's deadline passed."""
    UNCERTAIN = "uncertain"
    """Possibly executed and charged; the task id is not known."""


class ImageState(StrEnum):
    """What is known about one image of a succeeded task. A download in progress is not a state."""

    ANNOUNCED = "announced"
    """A URL is known."""
    STORED = "stored"
    """The verified file has its final name."""
    REJECTED = "rejected"
    """The bytes were invalid, and all attempts are used up."""
    EXPIRED = "expired"
    """No working URL could be obtained."""
    MISSING = "missing"
    """It was stored, but the file is missing or changed."""


EDGES: Mapping[TaskState, frozenset[TaskState]] = {
    # Back to succeeded: the missing files reappeared before their regeneration was paid for.
    TaskState.PLANNED: frozenset({TaskState.SUBMITTING, TaskState.SUCCEEDED}),
    TaskState.SUBMITTING: frozenset({TaskState.ACCEPTED, TaskState.PLANNED, TaskState.FAILED, TaskState.UNCERTAIN}),
    TaskState.ACCEPTED: frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.LOST}),
    # Only a person starts this: to regenerate missing images, or to prune what the job no longer asks for.
    TaskState.SUCCEEDED: frozenset({TaskState.PLANNED}),
    TaskState.FAILED: frozenset({TaskState.PLANNED}),
    # Back to accepted: polling again is free, and may find a paid result.
    TaskState.LOST: frozenset({TaskState.ACCEPTED, TaskState.PLANNED}),
    TaskState.UNCERTAIN: frozenset({TaskState.ACCEPTED, TaskState.PLANNED, TaskState.FAILED}),
}
"""All allowed transitions of a task. The manifest refuses any other."""

IMAGE_EDGES: Mapping[ImageState, frozenset[ImageState]] = {
    ImageState.ANNOUNCED: frozenset({ImageState.STORED, ImageState.REJECTED, ImageState.EXPIRED}),
    ImageState.STORED: frozenset({ImageState.MISSING}),
    ImageState.REJECTED: frozenset({ImageState.ANNOUNCED}),
    ImageState.EXPIRED: frozenset({ImageState.ANNOUNCED}),
    ImageState.MISSING: frozenset({ImageState.ANNOUNCED, ImageState.STORED}),
}
"""All allowed transitions of an image."""

KNOWN_FOR = 7 * 86_400.0
"""Seconds after its submission for which a service may know a task; its documentation states no limit."""

NOT_THERE = (ImageState.REJECTED, ImageState.EXPIRED, ImageState.MISSING)
"""States of an image that was delivered but is not stored."""

SAME_BYTES = "the same bytes as "
"""Prefix of the warning for an image with the same bytes as another."""

PRUNED = "its images were pruned"
"""Reason of a task whose images a person pruned; it is regenerated if the job asks for it again."""

QUEUED_AGAIN = "queued again by "
"""Prefix of the reason of a task that a person queued again after an attempt."""


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """One task as the job asks for it.

    `body` is the final request as JSON text; a local reference image appears in it as `sha256:HEX` until it is sent.
    `images` is how many images the service is asked for, and charges in advance. `paths` are relative to the output
    folder and have no extension: one for each image if the job's template uses `index`, else one. `cell` is a JSON
    object of axis values. `price` is the estimate for one image in millionths of a USD.
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
        """Body and fingerprint of each other request that earlier versions may have made from the same text."""
        return ()


class RereadTask(TaskSpec):
    """A task whose text earlier versions read differently."""

    __slots__ = ("_earlier",)
    _earlier: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, spec: TaskSpec, earlier: tuple[tuple[str, str], ...]) -> RereadTask:
        """Return `spec` with the requests that earlier versions may have made from it."""
        task = cls(**{field.name: getattr(spec, field.name) for field in fields(spec)})
        object.__setattr__(task, "_earlier", earlier)
        return task

    @property
    def earlier(self) -> tuple[tuple[str, str], ...]:
        """Body and fingerprint of each other request that earlier versions may have made from the same text."""
        return getattr(self, "_earlier", ())  # a copy with another field has none


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One task as the manifest knows it; times are unix seconds, money millionths of a USD.

    `ordinal` is None when the job no longer asks for it. The service may answer one submission with several task ids;
    the task ends when all of them have. `attempt` counts the idempotency keys used so far and `failures` the attempts
    that the service failed. `held` marks an uncertain task that only a person may resolve.
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
    """Why the result differs from the request; empty if it does not."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image as the manifest knows it; `index` counts from 1, `path` is relative to the output folder.

    `sha256`, `bytes`, `width`, `height` and `format` are known from just before the file gets its final name. `target`
    is where the file must move because the job's output path changed, `via` the path of a move in progress.
    `expires_at` is in unix seconds.
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
    """Why the stored file differs from the request; empty if it does not."""


def may_be_known(task: TaskRecord, now: float) -> bool:
    """Return whether polling a lost task at `now` (unix seconds) may find it again."""
    return bool(task.task_ids) and now - (task.submitted_at or 0.0) < KNOWN_FOR


def image_path(paths: tuple[str, ...], images: int, index: int, fingerprint: str) -> str:
    """Return the path, without an extension, of image `index` (from 1) of a task that asks for `images`.

    A single image has the bare path; otherwise each gets `-1`, `-2`, ... unless the template used `index` and so gave a
    path for each. Images beyond those requested are numbered on, with a part of the fingerprint, so that their paths
    cannot clash with another task's.
    """
    if index > images:
        return f"{paths[-1]}-{index}-{fingerprint[:8]}"
    if len(paths) > 1:
        return paths[index - 1]
    if images == 1:
        return paths[0]
    return f"{paths[0]}-{index}"


def home_of(task: TaskRecord | TaskSpec, image: ImageRecord) -> str:
    """Return the path that the job gives a stored image, with the extension of its present file."""
    stem = image_path(task.paths, task.images, image.index, task.fingerprint)
    return stem + PurePosixPath(image.path or "").suffix


@dataclass(frozen=True, slots=True)
class Totals:
    """Cost of all attempts, and reservations for those with an unknown cost; money in millionths of a USD."""

    reserved_images: int = 0
    reserved: int = 0
    images: int = 0
    cost: int = 0
