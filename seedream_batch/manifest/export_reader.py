"""The delivered images of each task of a job, with the times for an export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seedream_batch.manifest.reader import ManifestReader
from seedream_batch.model.task import ImageRecord, TaskRecord

# A temporary table: the manifest is open for reading only.
_STORED_AT = (
    "CREATE TEMP TABLE stored_at (task BIGINT, image BIGINT, at DOUBLE PRECISION, PRIMARY KEY (task, image))",
    """
    INSERT INTO stored_at SELECT task, image, max(at) FROM events
    WHERE image IS NOT NULL AND old = 'announced' AND new = 'stored' GROUP BY task, image
    """,
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A task, when it ended, and each of its images with the time it was stored; times in unix seconds."""

    task: TaskRecord
    ended_at: float | None
    images: tuple[tuple[ImageRecord, float | None], ...]


class DeliveryReader(ManifestReader):
    """A snapshot reader that also knows when each image was stored."""

    def snapshot(self) -> None:
        """Make all further answers consistent; scans the log once, as it has no index by image."""
        super().snapshot()
        with self._connection.translated_errors():
            for statement in _STORED_AT:
                self._connection.sql.execute(statement)

    def deliveries(self, fingerprints: Sequence[str]) -> dict[str, Delivery]:
        """Return what is known about these tasks (at most a few hundred at a time), by fingerprint."""
        stored_at = ' LEFT JOIN stored_at ON stored_at.task = images.task AND stored_at.image = images."index"'
        found = self._with_images("fingerprint", fingerprints, "stored_at.at", stored_at)
        return {task.fingerprint: Delivery(task, ended_at, tuple(images)) for task, ended_at, images in found}
