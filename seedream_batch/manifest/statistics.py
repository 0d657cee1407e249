"""What a status counts, in one pass over the rows each: a job may have a million of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from seedream_batch.manifest.reader import ManifestReader, RunRow
from seedream_batch.model.task import ImageState, TaskState

MOST_VALUES = 10_000
"""Values of an axis that are told apart; of an axis of more, the first of them are counted."""

_MOST_EVENTS = 200_000
"""Events that are looked through for how fast a run is."""


class Phase(StrEnum):
    """Where a task stands for somebody who waits for its images."""

    STORED = "stored"
    IN_FLIGHT = "in_flight"
    FAILED = "failed"
    """Or lost, or delivered and not there."""
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
    """Tasks of one value of an axis by part; `first` is the place in the job of the first of them."""

    first: int
    parts: dict[Phase, int] = field(default_factory=dict)


@dataclass(slots=True)
class AxisCount:
    """Tasks by value of one axis: the JSON text of each value, at most `MOST_VALUES` of them."""

    values: dict[str, ValueCount] = field(default_factory=dict)
    cut: bool = False
    """Whether there are more."""


@dataclass(frozen=True, slots=True)
class FailureRow:
    """Tasks that ended badly with the same code and reason: how many, and the path of the first in the job."""

    state: TaskState
    code: str
    reason: str
    count: int
    path: str


@dataclass(frozen=True, slots=True)
class CostNote:
    """Charges that are not simply what the service said, and why: how many, in millionths of a USD; one path."""

    note: str
    count: int
    cost: int
    path: str


@dataclass(frozen=True, slots=True)
class Pace:
    """Images that a run stored within so many seconds at its end, or up to now."""

    images: int
    seconds: float


class StatisticsReader(ManifestReader):
    """A read-only view that counts."""

    def by_axis(self, axes: Sequence[str]) -> dict[str, AxisCount]:
        """The tasks of the job by their values on these axes; a task that has none there does not count."""
        found = {axis: AxisCount() for axis in axes}
        if not axes:
            return found
        members = [self._connection.member("cell", axis) for axis in axes]
        columns = ", ".join(column for column, _ in members)
        sql = f"SELECT ordinal, {_PART}, {columns} FROM tasks WHERE ordinal IS NOT NULL"
        counters = list(found.values())
        for ordinal, part, *values in self._connection.each(sql, [value for _, value in members]):
            for counter, value in zip(counters, values, strict=True):
                one = counter.values.get(value)
                if one is None:
                    if value == "null":
                        continue
                    if len(counter.values) >= MOST_VALUES:
                        counter.cut = True
                        continue
                    one = counter.values[value] = ValueCount(ordinal)
                elif ordinal < one.first:
                    one.first = ordinal
                one.parts[part] = one.parts.get(part, 0) + 1
        return found

    def failures(self) -> Iterator[FailureRow]:
        """The job's tasks that failed or were lost, by code and reason, in the order of the job."""
        sql = (
            f"SELECT state, code, reason, count(*), {self._connection.first_of('paths')}, min(ordinal) AS place"
            " FROM tasks WHERE state IN ('failed', 'lost') AND ordinal IS NOT NULL"
            " GROUP BY state, code, reason ORDER BY place"
        )
        for state, code, reason, count, paths, _ in self._connection.each(sql):
            yield FailureRow(TaskState(state), code, reason, count, json.loads(paths)[0])

    def cost_notes(self, limit: int) -> list[CostNote]:
        """Up to `limit` things that are odd about costs, the most expensive first."""
        rows = self._rows(
            f"SELECT cost_note, count(*), sum(attempts.cost) AS money, {self._connection.first_of('paths')},"
            " min(ordinal) FROM attempts JOIN tasks ON tasks.id = task WHERE cost_note != '' GROUP BY cost_note"
            " ORDER BY money DESC LIMIT ?",
            (limit,),
        )
        return [CostNote(note, count, int(cost), json.loads(paths)[0]) for note, count, cost, paths, _ in rows]

    def images_left(self) -> int:
        """Images that are still to be made or fetched, as far as a run does it by itself."""
        planned = self._one(
            "SELECT coalesce(sum(images), 0) FROM tasks WHERE (state = 'planned' AND ordinal IS NOT NULL)"
            " OR state IN ('submitting', 'accepted')"
        )
        return int(planned[0]) + int(self._one("SELECT count(*) FROM images WHERE state = 'announced'")[0])

    def pace(self, run: RunRow, until: float | None, window: float) -> Pace | None:
        """How many images the run stored in the last `window` seconds: before `until`, or before its last image.

        Those of all workers, where there are any at work. None without any.
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
