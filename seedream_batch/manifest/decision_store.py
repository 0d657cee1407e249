"""Transitions that only a person decides about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from seedream_batch.manifest.database import Part
from seedream_batch.manifest.db.connection import Sql
from seedream_batch.manifest.image_store import ACCEPTED_AS_IS, ImageStore
from seedream_batch.manifest.transitions import TaskTransitions, leaving
from seedream_batch.model.task import QUEUED_AGAIN, ImageRecord, ImageState, TaskRecord, TaskState

REJECTED = "rejected by a person, to be regenerated"
"""Reason of a missing image whose file is in `superseded/`, and of its task being planned again."""


@dataclass(eq=False)
class DecisionStore(Part):
    """Transitions that only a person asks for. Reservations of uncertain tasks stay: they may have been charged."""

    _transitions: TaskTransitions
    _images: ImageStore

    def retry(self, tasks: Iterable[TaskRecord], now: float) -> None:
        """Plan failed and lost tasks again, as new attempts with new keys."""
        with self._group() as sql:
            for task in tasks:
                leaving(task, TaskState.FAILED, TaskState.LOST)
                self._plan(sql, task, "retry", now, reason=f"{QUEUED_AGAIN}`retry`")

    def remake(self, tasks: Iterable[TaskRecord], now: float) -> None:
        """Plan succeeded tasks with missing images again: their cost stays counted, and the new attempt costs again.

        The rows of their images stay: the next attempt replaces only those that are not stored.
        """
        with self._group() as sql:
            for task in tasks:
                leaving(task, TaskState.SUCCEEDED)
                self._plan(sql, task, "retry of missing images", now)

    def reject(self, task: TaskRecord, images: Iterable[tuple[ImageRecord, str]], now: float) -> None:
        """Plan a succeeded task again because a person rejected these stored images of it.

        Each comes with its path in the job, which is free now. The cost stays counted, and the new attempt is charged
        as well.
        """
        with self._group() as sql:
            for image, home in images:
                # Remove the link, so that the rejected image is not downloaded again.
                columns = {"path": home, "target": None, "url": ""}
                self._images.move(image, ImageState.MISSING, REJECTED, now, columns)
            leaving(task, TaskState.SUCCEEDED)
            self._plan(sql, task, REJECTED, now, reason=REJECTED)

    def _plan(self, sql: Sql, task: TaskRecord, why: str, now: float, *, reason: str = "") -> None:
        columns = {"failures": 0, "not_before": 0, "task_ids": None, "code": "", "reason": reason}
        self._transitions.move(sql, task, TaskState.PLANNED, why, now, **columns)

    def forget(self, tasks: Iterable[TaskRecord], now: float) -> None:
        """Plan uncertain tasks again with new keys: they may be charged twice."""
        with self._group() as sql:
            for task in tasks:
                reason = f"{QUEUED_AGAIN}`resolve --forget`: the first request may have been charged"
                columns = {"not_before": 0, "code": "", "reason": reason, "held": 0}
                self._transitions.move(sql, task, TaskState.PLANNED, "forgotten", now, **columns)
                self._transitions.record_outcome(sql, task, "forgotten")

    def accept(self, tasks: Iterable[TaskRecord], now: float) -> None:
        """Accept results that differ from the request as they are."""
        with self._group() as sql:
            for task in tasks:
                leaving(task, TaskState.SUCCEEDED)
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
        with self._group() as sql:
            for task in tasks:
                why = f"given up; before that: {task.reason}"
                self._transitions.move(sql, task, TaskState.FAILED, why, now, reason=why, held=0, ended_at=now)
                self._transitions.record_outcome(sql, task, "given up")

    def let_resend(self, tasks: Iterable[TaskRecord], now: float) -> None:
        """Allow uncertain tasks that were held to be sent again with their key."""
        with self._group() as sql:
            sql.executemany(
                "UPDATE tasks SET held = 0, updated_at = ? WHERE id = ? AND state = 'uncertain'",
                [(now, task.id) for task in tasks],
            )
