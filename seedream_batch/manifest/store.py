"""The manifest as the one run that holds it sees it: whole transactions, guarded moves, reserved money."""

from __future__ import annotations

import itertools
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from seedream_batch.manifest.connection import marks
from seedream_batch.manifest.decisions import Decisions
from seedream_batch.manifest.enter import Entered, enter
from seedream_batch.manifest.rescue import Rescued
from seedream_batch.manifest.rows import TASK_COLUMNS, task_record
from seedream_batch.manifest.upkeep import Upkeep
from seedream_batch.model.task import TaskRecord, TaskSpec, TaskState

_PAGE = 500


def _quoted(columns: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


class _TakenBack(Exception):
    """Ends a transaction that is not to be kept."""


class Manifest(Decisions, Upkeep):
    """The manifest open for writing. One process holds it at a time (see `lock`), one thread uses it at a time.

    Every public method is one transaction, durable when it returns; within `group()` they share one. A write that
    finds another state than it names changes nothing and raises `StaleTransition`.
    """

    @contextmanager
    def taken_back(self) -> Iterator[None]:
        """Whatever is written within is only there to be looked at within: afterwards nothing has changed."""
        with suppress(_TakenBack), self.group():
            yield
            raise _TakenBack

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

    # Moving to another place

    def is_empty(self) -> bool:
        """Whether it has neither tasks nor runs."""
        return not self._connection.rows("SELECT 1 FROM tasks UNION ALL SELECT 1 FROM runs LIMIT 1")

    def size(self) -> int:
        """How many tasks it has, those that the job no longer asks for included."""
        return int(self._connection.rows("SELECT count(*) FROM tasks")[0][0])

    def every(self, table: str) -> Iterator[tuple[Any, ...]]:
        """All rows of a table, the names of its columns first."""
        columns = self._connection.columns(table)
        yield columns
        yield from self._connection.each(f"SELECT {_quoted(columns)} FROM {table}")

    def take_over(self, table: str, rows: Iterator[tuple[Any, ...]]) -> None:
        """Makes the rows of another manifest, as `every` gives them, all that is in a table."""
        columns = next(rows)
        insert = f"INSERT INTO {table} ({_quoted(columns)}) VALUES ({marks(columns)})"
        with self.group() as sql:
            if self._connection.rows(f"SELECT 1 FROM {table} LIMIT 1"):
                # What every new manifest has: an identity of its own, and no costs.
                sql.execute(f"DELETE FROM {table}")
            while page := list(itertools.islice(rows, _PAGE)):
                sql.executemany(insert, page)

    def number_on(self, table: str) -> None:
        """New rows of a table get numbers behind those that it has."""
        with self.group():
            self._connection.number_on(table)

    def knows_task_id(self, task_id: str) -> bool:
        """Whether any attempt has this task id."""
        elements = self._connection.elements("attempts.task_ids")
        sql = f"SELECT 1 FROM attempts, {elements} WHERE element.value = ? LIMIT 1"
        return self._connection.row(sql, (task_id,)) is not None

    def numbers(self, state: TaskState) -> array[int]:
        """The tasks in flight in a state, in the order of the job; for `records`."""
        # The states are those of the index `tasks_open`, so that it is used.
        sql = (
            "SELECT id FROM tasks WHERE state IN ('submitting', 'accepted', 'uncertain') AND state = ?"
            " ORDER BY ordinal IS NULL, ordinal, id"
        )
        return self._connection.numbers(sql, (state,))

    def records(self, numbers: Sequence[int]) -> list[TaskRecord]:
        """These tasks (at most a few hundred at a time), in this order."""
        sql = f"SELECT {TASK_COLUMNS} FROM tasks WHERE id IN ({marks(numbers)})"
        found = {row[0]: task_record(row) for row in self._connection.rows(sql, numbers)}
        return [found[number] for number in numbers]

    def tasks(self, state: TaskState) -> list[TaskRecord]:
        """All tasks in a state, in the order of the job."""
        rows = self._connection.rows(
            f"SELECT {TASK_COLUMNS} FROM tasks WHERE state = ? ORDER BY ordinal IS NULL, ordinal, id",
            (state,),
        )
        return [task_record(row) for row in rows]
