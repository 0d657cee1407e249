"""What was delivered for each task of a job, with the times that an export tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seedream_batch.manifest.reader import ManifestReader
from seedream_batch.manifest.rows import IMAGE_COLUMNS, TASK_COLUMNS, image_record, task_record
from seedream_batch.model.task import ImageRecord, TaskRecord

_STORED_AT = """
CREATE TEMP TABLE stored_at (task INTEGER, image INTEGER, at REAL, PRIMARY KEY (task, image)) WITHOUT ROWID;
"""

_FILL = """
INSERT INTO temp.stored_at SELECT task, image, max(at) FROM main.events
WHERE image IS NOT NULL AND old = 'announced' AND new = 'stored' GROUP BY task, image
"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A task, when it ended, and each of its images with the time at which it was stored; times in unix seconds."""

    task: TaskRecord
    ended_at: float | None
    images: tuple[tuple[ImageRecord, float | None], ...]


class DeliveryReader(ManifestReader):
    """A reader of one moment that also knows when each image was stored."""

    def snapshot(self) -> None:
        """From here on every answer is of one moment; reads the log once, which has no index by image."""
        super().snapshot()
        # In a file of the connection's own: the manifest is open for reading only, and is not written to.
        self._rows(_STORED_AT)
        self._rows(_FILL)

    def deliveries(self, fingerprints: Sequence[str]) -> dict[str, Delivery]:
        """What is known of these tasks (at most a few hundred at a time), by fingerprint."""
        marks = ",".join("?" * len(fingerprints))
        rows = self._rows(f"SELECT {TASK_COLUMNS}, ended_at FROM tasks WHERE fingerprint IN ({marks})", fingerprints)
        tasks = [(task_record(row[:-1]), row[-1]) for row in rows]
        images: dict[int, list[tuple[ImageRecord, float | None]]] = {}
        marks = ",".join("?" * len(tasks))
        found = self._rows(
            f"SELECT {_OF_IMAGES}, stored_at.at FROM images LEFT JOIN temp.stored_at AS stored_at"
            ' ON stored_at.task = images.task AND stored_at.image = images."index"'
            f' WHERE images.task IN ({marks}) ORDER BY images.task, images."index"',
            [task.id for task, _ in tasks],
        )
        for row in found:
            image = image_record(row[:-1])
            images.setdefault(image.task, []).append((image, row[-1]))
        return {task.fingerprint: Delivery(task, ended, tuple(images.get(task.id, ()))) for task, ended in tasks}


_OF_IMAGES = ", ".join(f"images.{name.strip()}" for name in IMAGE_COLUMNS.split(","))
