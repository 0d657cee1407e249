"""Transitions that only a person decides about."""

from __future__ import annotations

from collections.abc import Iterable

from seedream_batch.manifest.image_store import ACCEPTED_AS_IS
from seedream_batch.manifest.task_store import TaskStore
from seedream_batch.model.task import ImageRecord, ImageState, TaskRecord, TaskState

REJECTED = "a person rejected it, and wants another"
"""Reason of a missing image whose file is in `superseded/`, and of its task being planned again."""


class DecisionStore(TaskStore):
    """Transitions that only a person asks for. Reservations of uncertain tasks stay: they may have been charged."""

    def retry(self, tasks: Iterable[TaskRecord], now: float) -> None:
        """Plan failed and lost tasks again, as new attempts with new keys."""
        with self.group() as sql:
            for task in tasks:
                self._leaving(task, TaskState.FAILED, TaskState.LOST)
                self._move(
                    sql, task, TaskState.PLANNED, "retry", now,
                    failures=0, not_before=0, task_ids=None, code="", reason="",
                )  # fmt: skip

    def remake(self, tasks: Iterable[TaskRecord], now: float) -> None:
        """Plan succeeded tasks with missing images again: their cost stays counted, and the new attempt costs again.

        The rows of their images stay: the next attempt replaces only those that are not stored.
        """
        with self.group() as sql:
            for task in tasks:
                self._leaving(task, TaskState.SUCCEEDED)
                self._move(
                    sql, task, TaskState.PLANNED, "retry of what is missing", now,
                    failures=0, not_before=0, task_ids=None, code="", reason="",
                )  # fmt: skip

    def reject(self, task: TaskRecord, images: Iterable[tuple[ImageRecord, str]], now: float) -> None:
        """Plan a succeeded task again because a person rejected these stored images of it.

        Each comes with its path in the job, which is free now. The cost stays counted, and the new attempt is charged
        as well.
        """
        with self.group() as sql:
            for image, home in images:
                # Remove the link, so that the rejected image is not downloaded again.
                self.move_image(
                    image, ImageState.MISSING, REJECTED, now, columns={"path": home, "target": None, "url": ""}
                )
            self._leaving(task, TaskState.SUCCEEDED)
            self._move(
                sql, task, TaskState.PLANNED, REJECTED, now,
                failures=0, not_before=0, task_ids=None, code="", reason=REJECTED,
            )  # fmt: skip

    def forget(self, tasks: Iterable[TaskRecord], now: float) -> None:
        """Plan uncertain tasks again with new keys: they may be charged twice."""
        with self.group() as sql:
            for task in tasks:
                self._move(sql, task, TaskState.PLANNED, "forgotten", now, not_before=0, code="", reason="", held=0)
                self._attempt(sql, task, "forgotten")

    def accept(self, tasks: Iterable[TaskRecord], now: float) -> None:
        """Accept results that differ from the request as they are."""
        with self.group() as sql:
            for task in tasks:
                self._leaving(task, TaskState.SUCCEEDED)
                sql.execute(
                    "UPDATE images SET reason = CAST(? AS TEXT) || warning, warning = '', updated_at = ?"
                    " WHERE task = ? AND state = 'stored' AND warning != ''",
                    (ACCEPTED_AS_IS, now, task.id),
                )
                if task.warning:
                    reason = f"{ACCEPTED_AS_IS}{task.warning}"
                    sql.execute("UPDATE tasks SET reason = ?, warning = '' WHERE id = ?", (reason, task.id))

    def give_up(self, tasks: Iterable[TaskRecord], now: float) -> None:
        """Count uncertain tasks as failed; their reservations stay."""
        with self.group() as sql:
            for task in tasks:
                why = f"given up; before that: {task.reason}"
                self._move(sql, task, TaskState.FAILED, why, now, reason=why, held=0, ended_at=now)
                self._attempt(sql, task, "given up")

    def let_resend(self, tasks: Iterable[TaskRecord], now: float) -> None:
        """Allow uncertain tasks that were held to be sent again with their key."""
        with self.group() as sql:
            sql.executemany(
                "UPDATE tasks SET held = 0, updated_at = ? WHERE id = ? AND state = 'uncertain'",
                [(now, task.id) for task in tasks],
            )
