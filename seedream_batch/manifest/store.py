"""The manifest as the one run that holds it sees it: whole transactions, guarded moves, reserved money."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable

from seedream_batch.manifest.decisions import Decisions
from seedream_batch.manifest.enter import Entered, enter
from seedream_batch.manifest.rescue import Rescued
from seedream_batch.manifest.rows import TASK_COLUMNS, task_record
from seedream_batch.model.task import TaskRecord, TaskSpec, TaskState


class Manifest(Decisions):
    """The manifest open for writing. One process holds it at a time (see `lock`), one thread uses it at a time.

    Every public method is one transaction, durable when it returns; within `group()` they share one. A write that
    finds another state than it names changes nothing and raises `StaleTransition`.
    """

    def enter(self, specs: Iterable[TaskSpec], now: float) -> Entered:
        """Makes the job's tasks those of the manifest, or changes nothing if the stream of tasks raises."""
        with self.group() as sql:
            return enter(sql, specs, now)

    def recover(self, now: float) -> int:
        """What a killed run left in the middle of a submission becomes uncertain; how many there were."""
        with self.group() as sql:
            left = self.tasks(TaskState.SUBMITTING)
            for task in left:
                why = "the run ended between sending and an answer"
                self._move(sql, task, TaskState.UNCERTAIN, why, now, reason=why, code="", held=0)
                self._attempt(sql, task, "uncertain")
        return len(left)

    def take_in(self, rescued: Iterable[Rescued], now: float, *, timeout: float) -> int:
        """Task ids that an earlier run could not store go to their tasks; how many of these answers are known now."""
        known = 0
        with self.group() as sql:
            for one in rescued:
                row = sql.execute(
                    "SELECT tasks.id, attempts.number = tasks.attempt AND tasks.state IN ('submitting', 'uncertain')"
                    " FROM attempts JOIN tasks ON tasks.id = attempts.task WHERE attempts.key = ?",
                    (one.key,),
                ).fetchone()
                if row is None:
                    continue
                known += 1
                if row[1]:
                    task = self.task(row[0])
                    self.accepted(task, one.task_ids, deadline=one.at + timeout, why="rescued", now=now)
                else:
                    sql.execute(
                        "UPDATE attempts SET task_ids = coalesce(task_ids, ?) WHERE key = ?",
                        (json.dumps(list(one.task_ids)), one.key),
                    )
        return known

    def knows_task_id(self, task_id: str) -> bool:
        """Whether any attempt has this task id."""
        sql = "SELECT 1 FROM attempts, json_each(attempts.task_ids) WHERE json_each.value = ?"
        return self._connection.row(sql, (task_id,)) is not None

    def tasks(self, state: TaskState) -> list[TaskRecord]:
        """All tasks in a state, in the order of the job."""
        rows = self._connection.rows(
            f"SELECT {TASK_COLUMNS} FROM tasks WHERE state = ? ORDER BY ordinal IS NULL, ordinal, id",
            (state,),
        )
        return [task_record(row) for row in rows]

    def due(self, limit: int, now: float, only: Collection[int] | None = None) -> list[TaskRecord]:
        """Up to `limit` planned tasks of the job (of `only` these) whose pause is over, in the order of the job."""
        rows = self._connection.rows(
            f"SELECT {TASK_COLUMNS} FROM tasks WHERE state = 'planned' AND ordinal IS NOT NULL AND not_before <= :now"
            " AND (:only IS NULL OR id IN (SELECT value FROM json_each(:only))) ORDER BY ordinal LIMIT :limit",
            {"now": now, "only": _ids(only), "limit": limit},
        )
        return [task_record(row) for row in rows]

    def next_due(self, only: Collection[int] | None = None) -> float | None:
        """When the first planned task of the job (of `only` these) may be sent, in unix seconds; None without any."""
        row = self._connection.rows(
            "SELECT min(not_before) FROM tasks WHERE state = 'planned' AND ordinal IS NOT NULL"
            " AND (:only IS NULL OR id IN (SELECT value FROM json_each(:only)))",
            {"only": _ids(only)},
        )[0]
        return None if row[0] is None else float(row[0])

    def planned_cost(self, limit: int | None) -> tuple[int, int]:
        """Images, and their estimated cost, of the planned tasks of the job; of the first `limit` of them, if given."""
        row = self._connection.rows(
            "SELECT coalesce(sum(images), 0), coalesce(sum(images * coalesce(prices.price, first.price)), 0) FROM"
            " (SELECT images, price, model, resolution FROM tasks WHERE state = 'planned' AND ordinal IS NOT NULL"
            " ORDER BY ordinal LIMIT ?) AS first LEFT JOIN prices USING (model, resolution)",
            (-1 if limit is None else limit,),
        )[0]
        return int(row[0]), int(row[1])


def _ids(numbers: Collection[int] | None) -> str | None:
    return None if numbers is None else json.dumps(sorted(numbers))
