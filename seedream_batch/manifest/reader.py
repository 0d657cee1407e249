"""The manifest as anybody may read it, also while a run writes it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from seedream_batch.manifest.answer_store import SELECT_ANSWERS, KeptAnswer, kept_answers
from seedream_batch.manifest.base_store import TASK_TIMES
from seedream_batch.manifest.db.connection import CLOCK, LEASE, marks
from seedream_batch.manifest.db.open import connect
from seedream_batch.manifest.rows import IMAGE_COLUMNS, TASK_COLUMNS, image_record, task_record
from seedream_batch.model.locations import Place
from seedream_batch.model.task import ImageRecord, ImageState, TaskRecord, TaskState, Totals

_SOMETHING = (
    "(state IN ('submitting', 'accepted', 'uncertain') OR EXISTS"
    " (SELECT 1 FROM images WHERE images.task = tasks.id AND images.state IN ('announced', 'stored')))"
)
"""The condition on a row of `tasks` that there is more of it than its account: files, or work in flight."""


_FLAGGED = (
    "tasks.state = 'succeeded' AND tasks.ordinal IS NOT NULL AND tasks.id IN (SELECT id FROM tasks WHERE warning != ''"
    " UNION SELECT task FROM images WHERE warning != '' AND state = 'stored')"
)
"""The condition on a row of `tasks` that its result is not what was requested."""


class Step(StrEnum):
    """A step on the way of a task that a chart of the run counts."""

    SUBMITTED = "submitted"
    ENDED = "ended"
    STORED = "stored"


@dataclass(frozen=True, slots=True)
class Doubt:
    """A task that is uncertain: the key it was `sent_at` (unix seconds) under, and what is held for it."""

    task: TaskRecord
    key: str
    sent_at: float
    reserved: int
    kept: list[KeptAnswer]
    """The answers that came, the newest first."""


@dataclass(frozen=True, slots=True)
class Flagged:
    """A task whose result is not what was requested, and those of its stored images that are not."""

    task: TaskRecord
    images: tuple[ImageRecord, ...]

    @property
    def warnings(self) -> list[str]:
        """Why, for each image or for all of them."""
        of_images = [f"{image.path}: {image.warning}" for image in self.images]
        return [*([f"{self.task.paths[0]}: {self.task.warning}"] if self.task.warning else []), *of_images]


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run, as it told of itself; times in unix seconds."""

    id: int
    started_at: float
    ended_at: float | None
    pid: int
    host: str
    version: str
    service: str
    outcome: str | None


@dataclass(frozen=True, slots=True)
class Shown:
    """A task as a report shows it: when it ended, and its images, each with the time of its last change."""

    task: TaskRecord
    ended_at: float | None
    images: list[tuple[ImageRecord, float]]


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A run at work beside others: since when, by its own clock, and what it has in hand and has done.

    `silent_for` are the seconds since its last sign of life; `gone` says that its session is not there any more. Money
    is in millionths of a USD.
    """

    run: int
    pid: int
    host: str
    started_at: float
    silent_for: float
    gone: bool
    in_flight: int
    images: int
    cost: int


class ManifestReader:
    """A read-only view. Raises `ManifestError` for what is no manifest of this version, or is not there."""

    def __init__(self, place: Place) -> None:
        self._connection = connect(place, read_only=True)
        self.name = self._connection.name
        """The manifest as people know it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def snapshot(self) -> None:
        """From here on every answer is of one moment, whatever a run writes meanwhile."""
        with self._connection.told():
            self._connection.sql.execute(self._connection.snapshot)
        self._rows("SELECT 1 FROM facts LIMIT 1")

    def fact(self, name: str) -> str:
        """A fact by its name, empty if it was never told."""
        row = self._connection.row("SELECT value FROM facts WHERE name = ?", (name,))
        return str(row[0]) if row else ""

    def last_run(self) -> RunRow | None:
        """The newest run."""
        row = self._connection.row(
            "SELECT id, started_at, ended_at, pid, host, version, service, outcome FROM runs ORDER BY id DESC LIMIT 1"
        )
        return RunRow(*row) if row else None

    def workers(self) -> list[WorkerRow]:
        """The runs that work side by side; none for a manifest in a file."""
        if not self._connection.has_workers:
            return []
        rows = self._rows(
            f"SELECT workers.run, pid, host, started_at, greatest({CLOCK} + ? - until, 0), gone IS NOT NULL,"
            " (SELECT count(*) FROM tasks WHERE worker = workers.run AND state IN ('submitting', 'accepted')),"
            " workers.images, workers.cost FROM workers JOIN runs ON runs.id = workers.run ORDER BY workers.run",
            (LEASE,),
        )
        return [WorkerRow(*row) for row in rows]

    def lookup(self, fingerprints: Sequence[str]) -> dict[str, TaskRecord]:
        """The known tasks among these (at most a few hundred at a time), by fingerprint."""
        sql = f"SELECT {TASK_COLUMNS} FROM tasks WHERE fingerprint IN ({marks(fingerprints)})"
        rows = self._rows(sql, fingerprints)
        return {row[1]: task_record(row) for row in rows}

    def images_of(self, tasks: Sequence[int]) -> dict[int, list[ImageRecord]]:
        """The images of these tasks (at most a few hundred at a time), by task."""
        found: dict[int, list[ImageRecord]] = {}
        rows = self._rows(
            f'SELECT {IMAGE_COLUMNS} FROM images WHERE task IN ({marks(tasks)}) ORDER BY task, "index"',
            tasks,
        )
        for row in rows:
            image = image_record(row)
            found.setdefault(image.task, []).append(image)
        return found

    def by_path(self, first_paths: Sequence[str]) -> dict[str, TaskRecord]:
        """Tasks by the JSON text of their paths, for telling what a changed cell was before."""
        rows = self._rows(
            f"SELECT {TASK_COLUMNS} FROM tasks WHERE ordinal IS NOT NULL AND paths IN ({marks(first_paths)})",
            first_paths,
        )
        return {row[7]: task_record(row) for row in rows}

    def counts(self) -> dict[TaskState, int]:
        """Tasks of the job by state; those that the job no longer has count only while they are in flight."""
        rows = self._rows(
            "SELECT state, count(*) FROM tasks WHERE ordinal IS NOT NULL OR state IN"
            " ('submitting', 'accepted', 'uncertain') GROUP BY state"
        )
        return {TaskState(state): number for state, number in rows}

    def with_something(self) -> int:
        """How many tasks have files or are in flight, those that the job no longer asks for included."""
        return int(self._one(f"SELECT count(*) FROM tasks WHERE {_SOMETHING}")[0])

    def dropped(self) -> int:
        """How many of them the job no longer asks for."""
        return int(self._one(f"SELECT count(*) FROM tasks WHERE ordinal IS NULL AND {_SOMETHING}")[0])

    def dropped_in_flight(self) -> int:
        """How many of those are in flight: they are paid for, and collected all the same."""
        sql = (
            "SELECT count(*) FROM tasks WHERE ordinal IS NULL AND (state = 'accepted' OR id IN"
            " (SELECT task FROM images WHERE state = 'announced'))"
        )
        return int(self._one(sql)[0])

    def wanted(self) -> tuple[int, int]:
        """How many tasks, and images, the job asked for when it was last run."""
        row = self._one("SELECT count(*), coalesce(sum(images), 0) FROM tasks WHERE ordinal IS NOT NULL")
        return int(row[0]), int(row[1])

    def image_counts(self) -> dict[ImageState, int]:
        """Images of the job's tasks by state."""
        rows = self._rows(
            "SELECT images.state, count(*) FROM images JOIN tasks ON tasks.id = images.task"
            " WHERE tasks.ordinal IS NOT NULL OR images.state = 'announced' GROUP BY images.state"
        )
        return {ImageState(state): number for state, number in rows}

    def stored_bytes(self) -> int:
        """Bytes of all stored images."""
        return int(self._one("SELECT coalesce(sum(bytes), 0) FROM images WHERE state = 'stored'")[0])

    def prices(self) -> dict[tuple[str, str], int]:
        """What an image of each model and resolution really cost, the last time the service said."""
        return {(row[0], row[1]): int(row[2]) for row in self._rows("SELECT model, resolution, price FROM prices")}

    def totals(self) -> Totals:
        """What was spent, and what is held."""
        return Totals(*self._one(f"SELECT reserved_images, reserved, images, cost FROM {self._connection.totals}"))

    def task_times(self) -> dict[str, list[float]]:
        """How many seconds tasks took from submission to end, by resolution, as the last run that knew has left it."""
        found: dict[str, list[float]] = json.loads(self.fact(TASK_TIMES) or "{}")
        return found

    def tasks(self, state: TaskState, limit: int) -> list[TaskRecord]:
        """Up to `limit` tasks in a state, in the order of the job."""
        rows = self._rows(
            f"SELECT {TASK_COLUMNS} FROM tasks WHERE state = ? AND (ordinal IS NOT NULL OR state IN"
            " ('submitting', 'accepted', 'uncertain')) ORDER BY ordinal IS NULL, ordinal, id LIMIT ?",
            (state, limit),
        )
        return [task_record(row) for row in rows]

    def doubts(self, limit: int) -> list[Doubt]:
        """Up to `limit` uncertain tasks with the submission that is in doubt, in the order of the job."""
        doubts = []
        for task in self.tasks(TaskState.UNCERTAIN, limit):
            row = self._one(
                "SELECT key, opened_at, reserved FROM attempts WHERE task = ? AND number = ?", (task.id, task.attempt)
            )
            key, sent_at, reserved = row
            doubts.append(Doubt(task, key, sent_at, reserved, self.kept_of(task)))
        return doubts

    def kept_answers(self, limit: int) -> list[tuple[KeptAnswer, TaskRecord]]:
        """Up to `limit` answers that were not fully understood, the newest first, with their tasks."""
        found = kept_answers(self._rows(f"{SELECT_ANSWERS} ORDER BY id DESC LIMIT ?", (limit,)))
        tasks = {one.task: self._task(one.task) for one in found}
        return [(one, tasks[one.task]) for one in found]

    def kept_of(self, task: TaskRecord) -> list[KeptAnswer]:
        """The kept answers to the last attempt of a task, the newest first."""
        rows = self._rows(f"{SELECT_ANSWERS} WHERE task = ? AND attempt = ? ORDER BY id DESC", (task.id, task.attempt))
        return kept_answers(rows)

    def kept_count(self) -> int:
        """How many answers are kept."""
        return int(self._one("SELECT count(*) FROM answers")[0])

    def troubled_images(self, limit: int) -> list[tuple[ImageRecord, TaskRecord]]:
        """Images that were delivered and could not be stored, or are gone, with their tasks."""
        rows = self._rows(
            f"SELECT {IMAGE_COLUMNS} FROM images WHERE state IN ('rejected', 'expired', 'missing') LIMIT ?",
            (limit,),
        )
        images = [image_record(row) for row in rows]
        tasks = {image.task: self._task(image.task) for image in images}
        return [(image, tasks[image.task]) for image in images]

    def flagged_tasks(self) -> int:
        """How many tasks of the job have a result that is not what was requested, and that nobody accepted."""
        return int(self._one(f"SELECT count(*) FROM tasks WHERE {_FLAGGED}")[0])

    def flagged(self, limit: int) -> list[Flagged]:
        """Up to `limit` of them, in the order of the job."""
        tasks = [
            task_record(row)
            for row in self._rows(
                f"SELECT {TASK_COLUMNS} FROM tasks WHERE {_FLAGGED} ORDER BY ordinal LIMIT ?", (limit,)
            )
        ]
        found = []
        for start in range(0, len(tasks), 256):
            page = tasks[start : start + 256]
            images = self.images_of([task.id for task in page])
            found += [
                Flagged(
                    task,
                    tuple(one for one in images.get(task.id, ()) if one.warning and one.state is ImageState.STORED),
                )
                for task in page
            ]
        return found

    def wanted_ids(self) -> list[int]:
        """The numbers of all tasks of the job, in its order."""
        return [row[0] for row in self._rows("SELECT id FROM tasks WHERE ordinal IS NOT NULL ORDER BY ordinal")]

    def shown(self, tasks: Sequence[int]) -> list[Shown]:
        """These tasks (at most a few hundred at a time) with their images, in the order they are given."""
        images: dict[int, list[tuple[ImageRecord, float]]] = {}
        for row in self._rows(
            f'SELECT {IMAGE_COLUMNS}, updated_at FROM images WHERE task IN ({marks(tasks)}) ORDER BY task, "index"',
            tasks,
        ):
            image = image_record(row[:-1])
            images.setdefault(image.task, []).append((image, row[-1]))
        rows = self._rows(f"SELECT {TASK_COLUMNS}, ended_at FROM tasks WHERE id IN ({marks(tasks)})", tasks)
        found = {row[0]: Shown(task_record(row[:-1]), row[-1], images.get(row[0], [])) for row in rows}
        return [found[number] for number in tasks if number in found]

    def stretches(self) -> list[tuple[float, float]]:
        """When each run that changed anything began and ended to do so, in order."""
        rows = self._rows("SELECT min(at), max(at) FROM events WHERE run IS NOT NULL GROUP BY run ORDER BY min(at)")
        return [(row[0], row[1]) for row in rows]

    def steps(self) -> Iterator[tuple[float, Step, int]]:
        """What the log tells of the way of all tasks, in order: when, what, and what it cost (millionths of a USD)."""
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

    def next_expiry(self) -> tuple[float, int] | None:
        """When the first announced image expires (unix seconds), and how many do within an hour of that."""
        row = self._one("SELECT min(expires_at) FROM images WHERE state = 'announced'")
        if row[0] is None:
            return None
        number = self._one(
            "SELECT count(*) FROM images WHERE state = 'announced' AND expires_at <= ?", (row[0] + 3600,)
        )[0]
        return float(row[0]), int(number)

    def _task(self, number: int) -> TaskRecord:
        return task_record(self._one(f"SELECT {TASK_COLUMNS} FROM tasks WHERE id = ?", (number,)))

    def _rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return self._connection.rows(sql, values)

    def _one(self, sql: str, values: Sequence[object] = ()) -> tuple[Any, ...]:
        """The one row of a query that always has one."""
        return self._rows(sql, values)[0]
