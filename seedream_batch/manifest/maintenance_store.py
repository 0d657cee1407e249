"""Queries and transitions for stored images: verify, restore, regenerate, prune."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seedream_batch.manifest.database import Part
from seedream_batch.manifest.db.connection import UNLIMITED, Sql
from seedream_batch.manifest.image_store import ImageStore
from seedream_batch.manifest.rows import read_images, read_tasks
from seedream_batch.manifest.task_queue import TaskQueue
from seedream_batch.manifest.task_store import TaskStore
from seedream_batch.manifest.transitions import TaskTransitions
from seedream_batch.model.task import PRUNED, ImageRecord, ImageState, TaskRecord, TaskState, home_of

_NOT_STORED = "images.state IN ('rejected', 'expired', 'missing')"
_NO_LINK = "(images.state IN ('rejected', 'expired') OR (images.state = 'missing' AND images.url = ''))"
"""Images known to have no working link: the run or `verify` asked the service."""
_WAITING = "EXISTS (SELECT 1 FROM images WHERE images.task = tasks.id AND images.state = 'announced')"
_IN_FLIGHT = f"(tasks.state IN ('submitting', 'accepted', 'uncertain') OR {_WAITING})"


@dataclass(frozen=True, slots=True)
class Unrecoverable:
    """Images without a working link, and the cost of regenerating their tasks (millionths of a USD)."""

    images: int
    cost: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """What is left of tasks no longer in the job: `files` of `tasks` with `bytes`, tasks in flight, unsent tasks."""

    tasks: int
    files: int
    bytes: int
    in_flight: int
    never_sent: int


@dataclass(eq=False)
class MaintenanceStore(Part):
    """Images that were stored, and the tasks they belong to."""

    _transitions: TaskTransitions
    _tasks: TaskStore
    _images: ImageStore
    _queue: TaskQueue

    # Verifying stored images

    def to_check(self, after: tuple[int, int], limit: int) -> list[ImageRecord]:
        """Return up to `limit` images of the job that are or were stored, after this task and index."""
        return self._page(f"images.state IN ('stored', 'missing') AND {self._queue.of_job}", after, limit)

    def missing(self, after: tuple[int, int], limit: int) -> list[ImageRecord]:
        """Return up to `limit` images of the job whose file is missing, after this task and index."""
        return self._page("images.state = 'missing' AND tasks.ordinal IS NOT NULL", after, limit)

    def _page(self, condition: str, after: tuple[int, int], limit: int) -> list[ImageRecord]:
        return read_images(
            self._connection,
            "images CROSS JOIN tasks WHERE tasks.id = images.task"
            f' AND (images.task, images."index") > (?, ?) AND {condition} ORDER BY images.task, images."index" LIMIT ?',
            (*after, limit),
        )

    def not_stored(self, limit: int | None) -> tuple[int, list[tuple[ImageRecord, TaskRecord]]]:
        """Return the number of delivered images of the job that are not stored; the first `limit` with their tasks."""
        not_stored = f"FROM images JOIN tasks ON tasks.id = images.task WHERE {_NOT_STORED} AND {self._queue.of_job}"
        count = self._connection.rows(f"SELECT count(*) {not_stored}")[0][0]
        rows = self._connection.rows(
            f'SELECT images.task, images."index" {not_stored} ORDER BY tasks.ordinal, images."index" LIMIT ?',
            (UNLIMITED if limit is None else limit,),
        )
        return int(count), [(self._images.of_task(task)[index - 1], self._tasks.get(task)) for task, index in rows]

    def waiting(self) -> int:
        """Return the number of images of the job that have a link but are not fetched yet."""
        rows = self._connection.rows(
            "SELECT count(*) FROM images JOIN tasks ON tasks.id = images.task"
            f" WHERE images.state = 'announced' AND {self._queue.of_job}"
        )
        return int(rows[0][0])

    def incomplete(self) -> list[int]:
        """Return the numbers of succeeded tasks of the job with an image that is missing or not fetched yet."""
        rows = self._connection.rows(
            f"SELECT id FROM tasks WHERE state = 'succeeded' AND {self._queue.of_job} AND id IN"
            f" (SELECT task FROM images WHERE {_NOT_STORED} UNION SELECT task FROM images WHERE state = 'announced')"
            " ORDER BY id"
        )
        return [int(row[0]) for row in rows]

    # Restoring missing images

    def restore(self, image: ImageRecord, path: str, now: float) -> bool:
        """Record that the intact file of an image, missing or stored elsewhere, was found at `path`.

        From there it moves on to its place in the job. Returns False and changes nothing if `path` is another image's.
        """
        with self._group():
            if self._images.belongs_to_another(image, path):
                return False
            task = self._tasks.get(image.task)
            home = home_of(task, image)
            target = None if task.ordinal is None or home == path else home
            if image.state is ImageState.STORED:
                self._images.relocate(image, path, target=target, now=now)
            else:
                columns = {"path": path, "target": target, "via": None}
                self._images.move(image, ImageState.STORED, "the file was restored", now, columns)
        return True

    def restore_complete(self, now: float) -> int:
        """Move tasks planned for regeneration back to succeeded if all their images are back; return their number."""
        with self._group() as sql:
            back = read_tasks(
                self._connection,
                f"tasks WHERE state = 'planned' AND attempt > 0 AND {self._queue.of_job}"
                " AND EXISTS (SELECT 1 FROM images WHERE task = tasks.id)"
                " AND NOT EXISTS (SELECT 1 FROM images WHERE task = tasks.id AND state != 'stored')",
            )
            for task in back:
                [ids] = sql.execute(
                    "SELECT task_ids FROM attempts WHERE task = ? AND outcome = 'succeeded' ORDER BY number DESC"
                    " LIMIT 1",
                    (task.id,),
                ).fetchone() or (None,)
                why = "its images were restored"
                self._transitions.move(sql, task, TaskState.SUCCEEDED, why, now, task_ids=ids, reason="", code="")
        return len(back)

    # Regenerating images

    def unrecoverable(self) -> Unrecoverable:
        """Return the job's images without a working link, and the cost of regenerating their tasks."""
        row = self._connection.rows(
            "SELECT coalesce(sum(lost.images), 0), coalesce(sum(tasks.images * coalesce(prices.price, tasks.price)), 0)"
            f" FROM (SELECT task, count(*) AS images FROM images WHERE {_NO_LINK} GROUP BY task) AS lost"
            " JOIN tasks ON tasks.id = lost.task LEFT JOIN prices USING (model, resolution)"
            f" WHERE tasks.state = 'succeeded' AND {self._queue.of_job} AND NOT {_WAITING}"
        )[0]
        return Unrecoverable(int(row[0]), int(row[1]))

    def to_remake(self) -> list[TaskRecord]:
        """Return succeeded tasks of the job with an image without a link, and none waiting to be fetched."""
        return self._succeeded(f"NOT {_WAITING} AND id IN (SELECT task FROM images WHERE {_NO_LINK})")

    def maybe_restorable(self) -> list[TaskRecord]:
        """Return the job's other succeeded tasks with a missing image, which a link may still give for free."""
        return self._succeeded(
            f"id IN (SELECT task FROM images WHERE {_NOT_STORED})"
            f" AND (id NOT IN (SELECT task FROM images WHERE {_NO_LINK}) OR {_WAITING})"
        )

    def _succeeded(self, condition: str) -> list[TaskRecord]:
        return read_tasks(
            self._connection,
            f"tasks WHERE state = 'succeeded' AND {self._queue.of_job} AND {condition} ORDER BY ordinal",
        )

    # Tasks that are no longer in the job

    def dropped(self) -> Dropped:
        """Return what is left of tasks that are no longer in the job."""
        dropped = f"tasks.ordinal IS NULL AND NOT {_IN_FLIGHT}"
        tasks, files, size = self._connection.rows(
            "SELECT count(DISTINCT task), count(*), coalesce(sum(bytes), 0) FROM images JOIN tasks ON tasks.id = task"
            f" WHERE images.state = 'stored' AND {dropped}"
        )[0]
        in_flight = self._connection.rows(f"SELECT count(*) FROM tasks WHERE ordinal IS NULL AND {_IN_FLIGHT}")[0][0]
        never = self._connection.rows(f"SELECT count(*) FROM tasks WHERE {_NEVER_SENT}")[0][0]
        return Dropped(int(tasks), int(files), int(size), int(in_flight), int(never))

    def to_prune(self, after: int, limit: int) -> list[tuple[TaskRecord, list[ImageRecord]]]:
        """Return up to `limit` tasks after this number that are neither in the job nor in flight, with images."""
        tasks = read_tasks(
            self._connection,
            f"tasks WHERE id > ? AND ordinal IS NULL AND NOT {_IN_FLIGHT}"
            " AND EXISTS (SELECT 1 FROM images WHERE images.task = tasks.id) ORDER BY id LIMIT ?",
            (after, limit),
        )
        return [(task, self._images.of_task(task.id)) for task in tasks]

    def prune(self, tasks: Sequence[TaskRecord], now: float) -> None:
        """Delete the image rows of these tasks, whose files were deleted. Their cost and log stay.

        A succeeded task becomes planned, so that it no longer counts as done; since it is not in the job, no run buys
        it. Failed and lost tasks keep their state and reason.
        """
        with self._group() as sql:
            for task in tasks:
                self._prune(sql, task, now)

    def _prune(self, sql: Sql, task: TaskRecord, now: float) -> None:
        stored = [image for image in self._images.of_task(task.id) if image.state is ImageState.STORED]
        missing = ImageState.MISSING
        self._database.log(sql, [(now, task.id, image.index, image.state, missing, "pruned") for image in stored])
        sql.execute("DELETE FROM images WHERE task = ?", (task.id,))
        # Keep answers while money is reserved: one may contain the id of a paid task.
        sql.execute(
            "DELETE FROM answers WHERE task = ? AND NOT EXISTS"
            " (SELECT 1 FROM attempts WHERE attempts.task = answers.task AND reserved_images > 0)",
            (task.id,),
        )
        if task.state is TaskState.SUCCEEDED:
            columns = {"failures": 0, "not_before": 0, "task_ids": None, "code": "", "reason": PRUNED}
            self._transitions.move(sql, task, TaskState.PLANNED, "pruned", now, **columns)
        elif task.state is TaskState.PLANNED:
            sql.execute("UPDATE tasks SET reason = ?, failures = 0 WHERE id = ?", (PRUNED, task.id))

    def prune_never_sent(self) -> int:
        """Delete tasks that are not in the job and were never sent; return their number."""
        with self._group() as sql:
            return int(sql.execute(f"DELETE FROM tasks WHERE {_NEVER_SENT}").rowcount)


_NEVER_SENT = "ordinal IS NULL AND state = 'planned' AND attempt = 0"
