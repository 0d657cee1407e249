"""Read-only access to a manifest, also while a run writes it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from seedream_batch.manifest.answer_store import KeptAnswer, read_answers
from seedream_batch.manifest.budget_ledger import read_totals
from seedream_batch.manifest.db.connection import CLOCK, LEASE, marks
from seedream_batch.manifest.db.open import connect
from seedream_batch.manifest.facts import Facts
from seedream_batch.manifest.rows import IMAGE_COLUMNS, TASK_COLUMNS, image_record, read_images, read_tasks, task_record
from seedream_batch.model.locations import Place
from seedream_batch.model.task import ImageRecord, ImageState, TaskRecord, TaskState, Totals

_WITH_RESULTS = (
    "(state IN ('submitting', 'accepted', 'uncertain') OR EXISTS"
    " (SELECT 1 FROM images WHERE images.task = tasks.id AND images.state IN ('announced', 'stored')))"
)
"""Condition on `tasks`: it has files or is in flight, so there is more than its costs."""


_FLAGGED = (
    "tasks.state = 'succeeded' AND tasks.ordinal IS NOT NULL AND tasks.id IN (SELECT id FROM tasks WHERE warning != ''"
    " UNION SELECT task FROM images WHERE warning != '' AND state = 'stored')"
)
"""Condition on `tasks`: its result differs from the request."""


@dataclass(frozen=True, slots=True)
class UncertainTask:
    """An uncertain task: the key it was sent with, `sent_at` (unix seconds), and its reservation."""

    task: TaskRecord
    key: str
    sent_at: float
    reserved: int
    kept: list[KeptAnswer]
    """The stored answers, newest first."""


@dataclass(frozen=True, slots=True)
class Flagged:
    """A task whose result differs from the request, and its stored images that do."""

    task: TaskRecord
    images: tuple[ImageRecord, ...]

    @property
    def warnings(self) -> list[str]:
        """The reasons, for each image or for the whole task."""
        of_images = [f"{image.path}: {image.warning}" for image in self.images]
        return [*([f"{self.task.paths[0]}: {self.task.warning}"] if self.task.warning else []), *of_images]


@dataclass(frozen=True, slots=True)
class TaskImages:
    """A task, when it ended, and each of its images with a time, if known; times in unix seconds."""

    task: TaskRecord
    ended_at: float | None
    images: list[tuple[ImageRecord, Any]]


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run as it recorded itself; times in unix seconds."""

    id: int
    started_at: float
    ended_at: float | None
    pid: int
    host: str
    version: str
    service: str
    outcome: str | None


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """An active run on a shared manifest: its start by its own clock, what it owns and what it has done.

    `silent_for` is the seconds since its last heartbeat; `gone` says that its session has ended. Money is in millionths
    of a USD.
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
    """A read-only view. Raises `ManifestError` if there is no manifest of this version."""

    def __init__(self, place: Place) -> None:
        self._connection = connect(place, read_only=True)
        self.facts = Facts(self._connection)
        self.name = self._connection.name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def snapshot(self) -> None:
        """Make all further answers consistent, whatever a run writes meanwhile."""
        with self._connection.translated_errors():
            self._connection.sql.execute(self._connection.snapshot)
        self._rows("SELECT 1 FROM facts LIMIT 1")

    def last_run(self) -> RunRow | None:
        row = self._connection.row(
            "SELECT id, started_at, ended_at, pid, host, version, service, outcome FROM runs ORDER BY id DESC LIMIT 1"
        )
        return RunRow(*row) if row else None

    def workers(self) -> list[WorkerRow]:
        """Return the workers; none for a manifest in a file."""
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
        """Return the known tasks among these (at most a few hundred at a time), by fingerprint."""
        tasks = read_tasks(self._connection, f"tasks WHERE fingerprint IN ({marks(fingerprints)})", fingerprints)
        return {task.fingerprint: task for task in tasks}

    def images_of(self, tasks: Sequence[int]) -> dict[int, list[ImageRecord]]:
        """Return the images of these tasks (at most a few hundred at a time), by task."""
        found = read_images(self._connection, f'images WHERE task IN ({marks(tasks)}) ORDER BY task, "index"', tasks)
        return {task: list(images) for task, images in itertools.groupby(found, lambda image: image.task)}

    def by_path(self, first_paths: Sequence[str]) -> dict[str, TaskRecord]:
        """Return tasks by the JSON text of their paths, to tell what a changed cell was before."""
        rows = self._rows(
            f"SELECT {TASK_COLUMNS} FROM tasks WHERE ordinal IS NOT NULL AND paths IN ({marks(first_paths)})",
            first_paths,
        )
        return {row[7]: task_record(row) for row in rows}

    def counts(self) -> dict[TaskState, int]:
        """Return the tasks by state; those no longer in the job count only while they are in flight."""
        rows = self._rows(
            "SELECT state, count(*) FROM tasks WHERE ordinal IS NOT NULL OR state IN"
            " ('submitting', 'accepted', 'uncertain') GROUP BY state"
        )
        return {TaskState(state): number for state, number in rows}

    def with_results(self) -> int:
        """Return the number of tasks with files or in flight, including those no longer in the job."""
        return int(self._one(f"SELECT count(*) FROM tasks WHERE {_WITH_RESULTS}")[0])

    def dropped(self) -> int:
        """Return how many of those are no longer in the job."""
        return int(self._one(f"SELECT count(*) FROM tasks WHERE ordinal IS NULL AND {_WITH_RESULTS}")[0])

    def dropped_in_flight(self) -> int:
        """Return how many of those are in flight: they are paid for, and collected anyway."""
        sql = (
            "SELECT count(*) FROM tasks WHERE ordinal IS NULL AND (state = 'accepted' OR id IN"
            " (SELECT task FROM images WHERE state = 'announced'))"
        )
        return int(self._one(sql)[0])

    def wanted(self) -> tuple[int, int]:
        """Return how many tasks and images the job asked for when it was last run."""
        row = self._one("SELECT count(*), coalesce(sum(images), 0) FROM tasks WHERE ordinal IS NOT NULL")
        return int(row[0]), int(row[1])

    def image_counts(self) -> dict[ImageState, int]:
        """Return the images of the job's tasks by state; of other tasks, those not fetched yet."""
        rows = self._rows(
            "SELECT images.state, count(*) FROM images JOIN tasks ON tasks.id = images.task"
            " WHERE tasks.ordinal IS NOT NULL OR images.state = 'announced' GROUP BY images.state"
        )
        return {ImageState(state): number for state, number in rows}

    def has_images(self) -> bool:
        """Return whether the manifest has any image, of any task."""
        return bool(self._rows("SELECT 1 FROM images LIMIT 1"))

    def stored_bytes(self) -> int:
        """Return the total size of all stored images in bytes."""
        return int(self._one("SELECT coalesce(sum(bytes), 0) FROM images WHERE state = 'stored'")[0])

    def prices(self) -> dict[tuple[str, str], int]:
        """Return the last charged price of an image, by model and resolution."""
        return {(row[0], row[1]): int(row[2]) for row in self._rows("SELECT model, resolution, price FROM prices")}

    def totals(self) -> Totals:
        return read_totals(self._connection)

    def tasks(self, state: TaskState, limit: int) -> list[TaskRecord]:
        """Return up to `limit` tasks in a state, in the job's order."""
        return read_tasks(
            self._connection,
            "tasks WHERE state = ? AND (ordinal IS NOT NULL OR state IN ('submitting', 'accepted', 'uncertain'))"
            " ORDER BY ordinal IS NULL, ordinal, id LIMIT ?",
            (state, limit),
        )

    def uncertain(self, limit: int) -> list[UncertainTask]:
        """Return up to `limit` uncertain tasks with the submission in doubt, in the job's order."""
        doubts = []
        for task in self.tasks(TaskState.UNCERTAIN, limit):
            row = self._one(
                "SELECT key, opened_at, reserved FROM attempts WHERE task = ? AND number = ?", (task.id, task.attempt)
            )
            key, sent_at, reserved = row
            doubts.append(UncertainTask(task, key, sent_at, reserved, self.answers_of(task)))
        return doubts

    def answers(self, limit: int) -> list[tuple[KeptAnswer, TaskRecord]]:
        """Return up to `limit` stored answers, newest first, with their tasks."""
        answers = read_answers(self._connection, "ORDER BY id DESC LIMIT ?", (limit,))
        tasks = {answer.task: self._task(answer.task) for answer in answers}
        return [(answer, tasks[answer.task]) for answer in answers]

    def answers_of(self, task: TaskRecord) -> list[KeptAnswer]:
        """Return the stored answers to the last attempt of a task, newest first."""
        newest_first = "WHERE task = ? AND attempt = ? ORDER BY id DESC"
        return read_answers(self._connection, newest_first, (task.id, task.attempt))

    def answer_count(self) -> int:
        return int(self._one("SELECT count(*) FROM answers")[0])

    def troubled_images(self, limit: int) -> list[tuple[ImageRecord, TaskRecord]]:
        """Return delivered images that could not be stored or are missing, with their tasks."""
        images = read_images(
            self._connection, "images WHERE state IN ('rejected', 'expired', 'missing') LIMIT ?", (limit,)
        )
        tasks = {image.task: self._task(image.task) for image in images}
        return [(image, tasks[image.task]) for image in images]

    def flagged_tasks(self) -> int:
        """Return the number of the job's tasks whose result differs from the request and was not accepted."""
        return int(self._one(f"SELECT count(*) FROM tasks WHERE {_FLAGGED}")[0])

    def flagged(self, limit: int) -> list[Flagged]:
        """Return up to `limit` of those, in the job's order."""
        tasks = read_tasks(self._connection, f"tasks WHERE {_FLAGGED} ORDER BY ordinal LIMIT ?", (limit,))
        results = []
        for start in range(0, len(tasks), 256):
            page = tasks[start : start + 256]
            images = self.images_of([task.id for task in page])
            results += [
                Flagged(
                    task,
                    tuple(
                        image for image in images.get(task.id, ()) if image.warning and image.state is ImageState.STORED
                    ),
                )
                for task in page
            ]
        return results

    def next_expiry(self) -> tuple[float, int] | None:
        """Return when the first link expires (unix seconds), and how many do within an hour of that."""
        row = self._one("SELECT min(expires_at) FROM images WHERE state = 'announced'")
        if row[0] is None:
            return None
        number = self._one(
            "SELECT count(*) FROM images WHERE state = 'announced' AND expires_at <= ?", (row[0] + 3600,)
        )[0]
        return float(row[0]), int(number)

    def _with_images(self, column: str, keys: Sequence[object], at: str, join: str = "") -> list[TaskImages]:
        """Return tasks by a column with their images, each with the time that `at` names."""
        tasks = self._rows(f"SELECT {TASK_COLUMNS}, ended_at FROM tasks WHERE {column} IN ({marks(keys)})", keys)
        rows = self._rows(
            f"SELECT {IMAGE_COLUMNS}, {at} FROM images{join} WHERE images.task IN ({marks(tasks)})"
            ' ORDER BY images.task, images."index"',
            [row[0] for row in tasks],
        )
        images: dict[int, list[tuple[ImageRecord, Any]]] = {}
        for row in rows:
            images.setdefault(row[0], []).append((image_record(row[:-1]), row[-1]))
        return [TaskImages(task_record(row[:-1]), row[-1], images.get(row[0], [])) for row in tasks]

    def _task(self, number: int) -> TaskRecord:
        return read_tasks(self._connection, "tasks WHERE id = ?", (number,))[0]

    def _rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return self._connection.rows(sql, values)

    def _one(self, sql: str, values: Sequence[object] = ()) -> tuple[Any, ...]:
        """Return the row of a query that always has one."""
        return self._rows(sql, values)[0]
