"""Reads what a gallery shows: the tasks of a job with their images, and the progress of its runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from seedream_batch.manifest.reader import ManifestReader
from seedream_batch.model.task import ImageRecord, ImageState, TaskRecord, TaskState


class Step(StrEnum):
    """A step of a task that a chart of the run counts."""

    SUBMITTED = "submitted"
    ENDED = "ended"
    STORED = "stored"


@dataclass(frozen=True, slots=True)
class GalleryTask:
    """A task for a report: when it ended, and its images with the time of their last change."""

    task: TaskRecord
    ended_at: float | None
    images: list[tuple[ImageRecord, float]]


class GalleryReader(ManifestReader):
    def wanted_ids(self) -> list[int]:
        """Return the numbers of all tasks of the job, in its order."""
        return [row[0] for row in self._rows("SELECT id FROM tasks WHERE ordinal IS NOT NULL ORDER BY ordinal")]

    def with_images(self, tasks: Sequence[int]) -> list[GalleryTask]:
        """Return these tasks (at most a few hundred at a time) with their images, in the given order."""
        found = self._with_images("id", tasks, "images.updated_at")
        by_number = {task.id: GalleryTask(task, ended_at, images) for task, ended_at, images in found}
        return [by_number[number] for number in tasks if number in by_number]

    def run_periods(self) -> list[tuple[float, float]]:
        """Return the first and last change of each run that changed anything, in order."""
        rows = self._rows("SELECT min(at), max(at) FROM events WHERE run IS NOT NULL GROUP BY run ORDER BY min(at)")
        return [(row[0], row[1]) for row in rows]

    def steps(self) -> Iterator[tuple[float, Step, int]]:
        """Yield the steps of all tasks from the log, in order: time, step, cost (millionths of a USD)."""
        costs = {
            (row[0], row[1]): row[2] for row in self._rows("SELECT task, number, cost FROM attempts WHERE cost != 0")
        }
        attempts: Counter[int] = Counter()
        events = "SELECT at, task, image, old, new FROM events WHERE run IS NOT NULL ORDER BY id"
        for at, task, image, old, new in self._connection.each(events):
            if image is not None:
                if new == ImageState.STORED and old == ImageState.ANNOUNCED:
                    yield at, Step.STORED, 0
            elif new == TaskState.SUBMITTING:
                attempts[task] += 1
                yield at, Step.SUBMITTED, 0
            elif old == TaskState.ACCEPTED:
                yield at, Step.ENDED, costs.get((task, attempts[task]), 0)
