"""The contents of a manifest in numbers."""

from __future__ import annotations

from dataclasses import dataclass

from seedream_batch.manifest.reader import ManifestReader
from seedream_batch.model.locations import Place
from seedream_batch.model.task import ImageState, TaskState, Totals


@dataclass(frozen=True, slots=True)
class Counts:
    """Tasks and images of a job by state, the number of images it asks for, and their cost."""

    tasks: dict[TaskState, int]
    images: dict[ImageState, int]
    wanted: int
    totals: Totals
    flagged: int
    """Tasks whose result differs from the request."""


def read_counts(manifest: Place) -> Counts:
    """Read consistent counts, also while a run is active. Raises `ManifestError` and `StorageError`."""
    with ManifestReader(manifest) as reader:
        reader.snapshot()
        wanted, flagged = reader.wanted()[1], reader.flagged_tasks()
        return Counts(reader.counts(), reader.image_counts(), wanted, reader.totals(), flagged)
