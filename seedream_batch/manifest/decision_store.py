"""What a person decides about tasks that no run decides by itself."""

from __future__ import annotations

from collections.abc import Iterable

from seedream_batch.manifest.image_store import ACCEPTED_AS_IS
from seedream_batch.manifest.task_store import TaskStore
from seedream_batch.model.task import ImageRecord, ImageState, TaskRecord, TaskState

REJECTED = "a person rejected it, and wants another"
"""Why an image is missing whose file is in `superseded/`, and why its task is planned again."""


class DecisionStore(TaskStore):
    """Moves that only a person asks for. Money held for a task in doubt stays held: it may have been paid."""

    def retry(self, tasks: Iterable[TaskRecord], now: float) -> None:
        """Failed and lost tasks are planned again, as new attempts under new keys."""
        with self.group() as sql:
            for task in tasks:
                self._leaving(task, TaskState.FAILED, TaskState.LOST)
                self._move(
                    sql, task, TaskState.PLANNED, "retry", now,
                    failures=0, not_before=0, task_ids=None, code="", reason="",
                )  # fmt: skip

    def remake(self, tasks: Iterable[TaskRecord], now: float) -> None:
        """Succeeded tasks whose images are not there are planned again: what they cost stays counted, and is paid anew.

        The rows of their images stay: what is stored is not replaced by the next attempt, the rest is.
        """
        with self.group() as sql:
            for task in tasks:
                self._leaving(task, TaskState.SUCCEEDED)
                self._move(
                    sql, task, TaskState.PLANNED, "retry of what is missing", now,
                    failures=0, not_before=0, task_ids=None, code="", reason="",
                )  # fmt: skip

    def reject(self, task: TaskRecord, images: Iterable[tuple[ImageRecord, str]], now: float) -> None:
        """A succeeded task is planned again, since a person rejected these stored images of it.

        Each comes with its place in the job, which is free now. What they cost stays counted, and is paid anew.
        """
        with self.group() as sql:
            for image, home in images:
                # Without a link, so that nobody asks the service for the picture that was rejected.
                self.move_image(
                    image, ImageState.MISSING, REJECTED, now, columns={"path": home, "target": None, "url": ""}
                )
            self._leaving(task, TaskState.SUCCEEDED)
            self._move(
                sql, task, TaskState.PLANNED, REJECTED, now,
                failures=0, not_before=0, task_ids=None, code="", reason=REJECTED,
            )  # fmt: skip

    def forget(self, tasks: Iterable[TaskRecord], now: float) -> None:
        """Uncertain tasks are planned again under new keys: they may be paid for twice."""
        with self.group() as sql:
            for task in tasks:
                self._move(sql, task, TaskState.PLANNED, "forgotten", now, not_before=0, code="", reason="", held=0)
                self._attempt(sql, task, "forgotten")

    def accept(self, tasks: Iterable[TaskRecord], now: float) -> None:
        """Results that are not what was requested are taken as they are."""
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
        """Uncertain tasks count as failed; what they may have cost stays held."""
        with self.group() as sql:
            for task in tasks:
                why = f"given up; before that: {task.reason}"
                self._move(sql, task, TaskState.FAILED, why, now, reason=why, held=0, ended_at=now)
                self._attempt(sql, task, "given up")

    def let_resend(self, tasks: Iterable[TaskRecord], now: float) -> None:
        """Uncertain tasks that were held may be sent again under their key."""
        with self.group() as sql:
            sql.executemany(
                "UPDATE tasks SET held = 0, updated_at = ? WHERE id = ? AND state = 'uncertain'",
                [(now, task.id) for task in tasks],
            )
