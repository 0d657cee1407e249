"""Raw answers of the service that were not fully understood, stored because they may contain a task id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from seedream_batch.manifest.base_store import BaseStore
from seedream_batch.manifest.db.connection import Sql
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


class AnswerStore(BaseStore):
    """Stored answers, each written in the transaction of the outcome it led to."""

    def keep(self, task: TaskRecord, kept: Kept, now: float) -> None:
        """Store the answer to a poll."""
        with self.group() as sql:
            self._keep(sql, task, kept, POLL, now)

    def answers(self, task: int) -> list[KeptAnswer]:
        """Return the stored answers of a task, newest first."""
        return kept_answers(self._connection.rows(f"{SELECT_ANSWERS} WHERE task = ? ORDER BY id DESC", (task,)))

    def _keep(self, sql: Sql, task: TaskRecord, kept: Kept | None, kind: str, now: float) -> None:
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


SELECT_ANSWERS = "SELECT at, task, attempt, kind, why, status, headers, body, length FROM answers"


def kept_answers(rows: list[tuple[Any, ...]]) -> list[KeptAnswer]:
    """Convert rows of `SELECT_ANSWERS`."""
    return [KeptAnswer(at, task, attempt, kind, Kept(*kept)) for at, task, attempt, kind, *kept in rows]
