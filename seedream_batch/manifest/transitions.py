"""Guarded, logged transitions of tasks: the one way in which the state of a task changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from seedream_batch.errors import StaleTransition
from seedream_batch.manifest.database import Part, expect_rows
from seedream_batch.manifest.db.connection import Sql
from seedream_batch.model.task import EDGES, TaskRecord, TaskState


@dataclass(frozen=True, slots=True)
class Move:
    """A transition of a task from the state and attempt of its record: why, when (unix seconds), and columns to set."""

    task: TaskRecord
    why: str
    now: float
    columns: Mapping[str, object]


class TaskTransitions(Part):
    """Transitions of tasks and the outcomes of their attempts, each in the transaction of its caller."""

    times_planned = 0
    """A number that grows whenever a task becomes planned again."""

    def move(self, sql: Sql, task: TaskRecord, new: TaskState, why: str, now: float, **columns: object) -> None:
        """Call `move_all` for one task."""
        self.move_all(sql, new, [Move(task, why, now, columns)])

    def move_all(self, sql: Sql, new: TaskState, moves: Sequence[Move]) -> None:
        """Move all tasks or none from the states and attempts of their records; all moves set the same columns.

        So an answer to an earlier attempt changes nothing. Raises `StaleTransition`.
        """
        for move in moves:
            if new not in EDGES[move.task.state]:
                raise StaleTransition(f"a task does not go from {move.task.state} to {new}")
        self.times_planned += new is TaskState.PLANNED
        assignments = ", ".join(f"{name} = ?" for name in ("state", "updated_at", *moves[0].columns))
        cursor = sql.executemany(
            f"UPDATE tasks SET {assignments} WHERE id = ? AND state = ? AND attempt = ?",
            [
                (new, move.now, *move.columns.values(), move.task.id, move.task.state, move.task.attempt)
                for move in moves
            ],
        )
        task = moves[0].task
        expect_rows(cursor, len(moves), f"task {task.id} in state {task.state}, attempt {task.attempt},")
        self._database.log(sql, [(move.now, move.task.id, None, move.task.state, new, move.why) for move in moves])

    def record_outcome(self, sql: Sql, task: TaskRecord, outcome: str) -> None:
        """Call `record_outcomes` for one task, without task ids."""
        self.record_outcomes(sql, outcome, [(task, None)])

    def record_outcomes(self, sql: Sql, outcome: str, tasks: Sequence[tuple[TaskRecord, str | None]]) -> None:
        """Record the outcome of each task's latest attempt, and its task ids if they are new."""
        cursor = sql.executemany(
            "UPDATE attempts SET outcome = ?, task_ids = coalesce(?, task_ids) WHERE task = ? AND number = ?",
            [(outcome, task_ids, task.id, task.attempt) for task, task_ids in tasks],
        )
        expect_rows(cursor, len(tasks), f"attempt {tasks[0][0].attempt} of task {tasks[0][0].id}")


def leaving(task: TaskRecord, *states: TaskState) -> None:
    """Raise `StaleTransition` unless the task is in one of these states: `EDGES` alone would allow too much."""
    if task.state not in states:
        expected = " or ".join(states)
        raise StaleTransition(f"task {task.id} is {task.state}, not {expected}; nothing was changed")
