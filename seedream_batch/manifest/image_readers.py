"""Read the tasks of a job with their images: for an export, and for a gallery with the progress of its runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from enum import StrEnum

from seedream_batch.manifest.reader import ManifestReader, TaskImages
from seedream_batch.model.task import ImageState, TaskState

# A temporary table: the manifest is open for reading only.
_STORED_AT = (
    "CREATE TEMP TABLE stored_at (task BIGINT, image BIGINT, at DOUBLE PRECISION, PRIMARY KEY (task, image))",
    """
    INSERT INTO stored_at SELECT task, image, max(at) FROM events
    WHERE image IS NOT NULL AND old = 'announced' AND new = 'stored' GROUP BY task, image
    """,
)


class DeliveryReader(ManifestReader):
    """A snapshot reader that also knows when each image was stored."""

    def snapshot(self) -> None:
        """Make all further answers consistent; scans the log once, as it has no index by image."""
        super().snapshot()
        with self._connection.translated_errors():
            for statement in _STORED_AT:
                self._connection.sql.execute(statement)

    def deliveries(self, fingerprints: Sequence[str]) -> dict[str, TaskImages]:
        """Return these tasks (at most a few hundred at a time) by fingerprint, and when each image was stored."""
        stored_at = ' LEFT JOIN stored_at ON stored_at.task = images.task AND stored_at.image = images."index"'
        found = self._with_images("fingerprint", fingerprints, "stored_at.at", stored_at)
        return {entry.task.fingerprint: entry for entry in found}


class Step(StrEnum):
    """A step of a task that a chart of the run counts."""

    SUBMITTED = "submitted"
    ENDED = "ended"
    STORED = "stored"


class GalleryReader(ManifestReader):
    def wanted_ids(self) -> list[int]:
        """Return the numbers of all tasks of the job, in its order."""
        return [row[0] for row in self._rows("SELECT id FROM tasks WHERE ordinal IS NOT NULL ORDER BY ordinal")]

    def with_images(self, tasks: Sequence[int]) -> list[TaskImages]:
        """Return these tasks (at most a few hundred at a time) in this order, and when each image last changed."""
        by_number = {entry.task.id: entry for entry in self._with_images("id", tasks, "images.updated_at")}
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
