"""Raw answers of the service that were not fully understood, stored because they may contain a task id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seedream_batch.manifest.database import Part
from seedream_batch.manifest.db.connection import Connection, Sql
from seedream_batch.model.outcome import Kept
from seedream_batch.model.task import TaskRecord

MOST = 5
"""Answers kept per task: the latest ones."""

SUBMISSION = "submission"
POLL = "poll"


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """A stored answer: when it came (unix seconds), to which attempt of which task, to a submission or a poll."""

    at: float
    task: int
    attempt: int
    kind: str
    kept: Kept


class AnswerStore(Part):
    """Stored answers, each written in the transaction of the outcome it led to."""

    def record(self, task: TaskRecord, kept: Kept, now: float) -> None:
        """Store the answer to a poll."""
        with self._group() as sql:
            self.keep(sql, task, kept, POLL, now)

    def keep(self, sql: Sql, task: TaskRecord, kept: Kept | None, kind: str, now: float) -> None:
        """Store an answer if there is one that is worth it, and delete all but the latest ones of the task."""
        if kept is None or not kept.why:
            return
        sql.execute(
            "INSERT INTO answers (at, task, attempt, kind, status, headers, body, length, why)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (now, task.id, task.attempt, kind, kept.status, kept.headers, kept.body, kept.length, kept.why),
        )
        sql.execute(
            "DELETE FROM answers WHERE task = ? AND id NOT IN"
            " (SELECT id FROM answers WHERE task = ? ORDER BY id DESC LIMIT ?)",
            (task.id, task.id, MOST),
        )

    def of_task(self, task: int) -> list[KeptAnswer]:
        """Return the stored answers of a task, newest first."""
        return read_answers(self._connection, "WHERE task = ? ORDER BY id DESC", (task,))


def read_answers(connection: Connection, condition: str, values: Sequence[object]) -> list[KeptAnswer]:
    """Return the stored answers that a condition selects."""
    rows = connection.rows(
        f"SELECT at, task, attempt, kind, why, status, headers, body, length FROM answers {condition}", values
    )
    return [KeptAnswer(at, task, attempt, kind, Kept(*kept)) for at, task, attempt, kind, *kept in rows]
