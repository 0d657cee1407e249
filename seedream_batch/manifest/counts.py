"""What a manifest holds, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

from seedream_batch.manifest.reader import ManifestReader
from seedream_batch.model.locations import Place
from seedream_batch.model.task import ImageState, TaskState, Totals


@dataclass(frozen=True, slots=True)
class Counts:
    """Tasks and images of a job by state, how many images it asks for, and what they cost."""

    tasks: dict[TaskState, int]
    images: dict[ImageState, int]
    wanted: int
    totals: Totals
    flagged: int
    """Tasks whose result is not what was requested."""


def read_counts(manifest: Place) -> Counts:
    """The numbers of one moment, also beside a run. Raises `ManifestError`, `StorageError`."""
    with ManifestReader(manifest) as reader:
        reader.snapshot()
        wanted, flagged = reader.wanted()[1], reader.flagged_tasks()
        return Counts(reader.counts(), reader.image_counts(), wanted, reader.totals(), flagged)
