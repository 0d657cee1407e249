"""Counts for a status, each in one pass over the rows: a job may have a million."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from seedream_batch.manifest.reader import ManifestReader, RunRow
from seedream_batch.model.locations import Place
from seedream_batch.model.task import ImageState, TaskState, Totals

MOST_VALUES = 10_000
"""Values of an axis that are distinguished; further ones are not counted."""

_MOST_EVENTS = 200_000
"""Events that are read to measure the pace of a run."""


class Phase(StrEnum):
    """The progress of a task for somebody waiting for its images."""

    STORED = "stored"
    IN_FLIGHT = "in_flight"
    FAILED = "failed"
    """Failed or lost, or delivered but not stored."""
    UNCERTAIN = "uncertain"
    PLANNED = "planned"


_PART = """
    CASE state
        WHEN 'succeeded' THEN CASE
            WHEN id IN (SELECT task FROM images WHERE state = 'announced') THEN 'in_flight'
            WHEN id IN (SELECT task FROM images WHERE state IN ('rejected', 'expired', 'missing')) THEN 'failed'
            ELSE 'stored' END
        WHEN 'submitting' THEN 'in_flight'
        WHEN 'accepted' THEN 'in_flight'
        WHEN 'lost' THEN 'failed'
        ELSE state END
"""


@dataclass(slots=True)
class ValueCount:
    """Tasks of one value of an axis by phase; `first` is the position of the first of them in the job."""

    first: int
    parts: dict[Phase, int] = field(default_factory=dict)


@dataclass(slots=True)
class AxisCount:
    """Tasks of one axis by the JSON text of their value, at most `MOST_VALUES` values."""

    values: dict[str, ValueCount] = field(default_factory=dict)
    cut: bool = False
    """Whether there are more values."""


@dataclass(frozen=True, slots=True)
class FailureRow:
    """Tasks that failed with the same code and reason: their number, and the path of the first in the job."""

    state: TaskState
    code: str
    reason: str
    count: int
    path: str


@dataclass(frozen=True, slots=True)
class CostNote:
    """Charges that differ from what the service said, and why: number, cost (millionths of a USD), one path."""

    note: str
    count: int
    cost: int
    path: str


@dataclass(frozen=True, slots=True)
class Pace:
    """Images that a run stored in a number of seconds before its last image, or before now."""

    images: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Counts:
    """Tasks and images of a job by state, the number of images it asks for, and their cost."""

    tasks: dict[TaskState, int]
    images: dict[ImageState, int]
    wanted: int
    totals: Totals
    flagged: int
    """Tasks whose result differs from the request."""


class StatisticsReader(ManifestReader):
    def by_axis(self, axes: Sequence[str]) -> dict[str, AxisCount]:
        """Count the job's tasks by their values on these axes; skips tasks without a value there."""
        counts = {axis: AxisCount() for axis in axes}
        if not axes:
            return counts
        members = [self._connection.dialect.member("cell", axis) for axis in axes]
        columns = ", ".join(column for column, _ in members)
        sql = f"SELECT ordinal, {_PART}, {columns} FROM tasks WHERE ordinal IS NOT NULL"
        counters = list(counts.values())
        for ordinal, part, *values in self._connection.each(sql, [value for _, value in members]):
            for counter, value in zip(counters, values, strict=True):
                count = counter.values.get(value)
                if count is None:
                    if value == "null":
                        continue
                    if len(counter.values) >= MOST_VALUES:
                        counter.cut = True
                        continue
                    count = counter.values[value] = ValueCount(ordinal)
                elif ordinal < count.first:
                    count.first = ordinal
                count.parts[part] = count.parts.get(part, 0) + 1
        return counts

    def failures(self) -> Iterator[FailureRow]:
        """Yield the job's failed and lost tasks, grouped by code and reason, in the job's order."""
        sql = (
            f"SELECT state, code, reason, count(*), {self._connection.dialect.first_of('paths')}, min(ordinal) AS place"
            " FROM tasks WHERE state IN ('failed', 'lost') AND ordinal IS NOT NULL"
            " GROUP BY state, code, reason ORDER BY place"
        )
        for state, code, reason, count, paths, _ in self._connection.each(sql):
            yield FailureRow(TaskState(state), code, reason, count, json.loads(paths)[0])

    def cost_notes(self, limit: int) -> list[CostNote]:
        """Return up to `limit` cost notes, the most expensive first."""
        rows = self._rows(
            f"SELECT cost_note, count(*), sum(attempts.cost) AS money, {self._connection.dialect.first_of('paths')},"
            " min(ordinal) FROM attempts JOIN tasks ON tasks.id = task WHERE cost_note != '' GROUP BY cost_note"
            " ORDER BY money DESC LIMIT ?",
            (limit,),
        )
        return [CostNote(note, count, int(cost), json.loads(paths)[0]) for note, count, cost, paths, _ in rows]

    def images_left(self) -> int:
        """Return the number of images that a run would still generate or fetch by itself."""
        planned = self._one(
            "SELECT coalesce(sum(images), 0) FROM tasks WHERE (state = 'planned' AND ordinal IS NOT NULL)"
            " OR state IN ('submitting', 'accepted')"
        )
        return int(planned[0]) + int(self._one("SELECT count(*) FROM images WHERE state = 'announced'")[0])

    def pace(self, run: RunRow, until: float | None, window: float) -> Pace | None:
        """Return how many images were stored in the last `window` seconds before `until`, or before the last image.

        Counts the images of all active workers, if there are any. None if there are no images.
        """
        count, end = 0, until
        runs = {run.id, *(worker.run for worker in self.workers())}
        events = "SELECT at, run, image, old, new FROM events ORDER BY id DESC LIMIT ?"
        for at, of, image, old, new in self._connection.each(events, (_MOST_EVENTS,)):
            if of is None:
                continue
            if of not in runs or (end is not None and at < end - window):
                break
            if image is not None and old == ImageState.ANNOUNCED and new == ImageState.STORED:
                end = at if end is None else end
                count += 1
        if end is None or not count:
            return None
        return Pace(count, max(end - max(run.started_at, end - window), 0.001))


def read_counts(manifest: Place) -> Counts:
    """Read consistent counts, also while a run is active. Raises `ManifestError` and `StorageError`."""
    with ManifestReader(manifest) as reader:
        reader.snapshot()
        wanted, flagged = reader.wanted()[1], reader.flagged_tasks()
        return Counts(reader.counts(), reader.image_counts(), wanted, reader.totals(), flagged)
