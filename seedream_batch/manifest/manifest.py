"""The manifest for the run that holds it: transactions, guarded transitions, reservations."""

from __future__ import annotations

import itertools
import json
import platform
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from seedream_batch.manifest.db.connection import marks
from seedream_batch.manifest.decision_store import DecisionStore
from seedream_batch.manifest.maintenance_store import MaintenanceStore
from seedream_batch.manifest.rescue_log import Rescued
from seedream_batch.manifest.rows import TASK_COLUMNS, task_record
from seedream_batch.manifest.sync_job import SyncResult, enter
from seedream_batch.manifest.worker_store import WorkerStore
from seedream_batch.model.locations import Place
from seedream_batch.model.task import TaskRecord, TaskSpec, TaskState

_PAGE = 500


def _quoted(columns: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


class _TakenBack(Exception):
    """Rolls a transaction back on purpose."""


class Manifest(DecisionStore, MaintenanceStore, WorkerStore):
    """The manifest, open for writing. One process holds it at a time (see `run_lock`), one thread uses it at a time.

    Opened `shared`, which only a server allows, several processes hold it together, each for a run that is a worker.
    Every public method is one transaction, durable when it returns; within `group()` they share one. A write that finds
    a different state than it expects changes nothing and raises `StaleTransition`.
    """

    def __init__(self, place: Place, *, shared: bool = False) -> None:
        """Open it. Raises `ManifestLocked` if a run holds it; waits briefly for workers that just died."""
        super().__init__(place, shared=shared)
        if self._connection.has_workers and not shared:
            try:
                while self.others():
                    # None of them has a session: otherwise opening it would have failed.
                    self.expire_workers(time.time(), platform.node())
                    if self.others():
                        time.sleep(0.2)
            except BaseException:
                self.close()
                raise

    @contextmanager
    def taken_back(self) -> Iterator[None]:
        """Roll back whatever is written inside; it is visible only there."""
        with suppress(_TakenBack), self.group():
            yield
            raise _TakenBack

    def enter(self, specs: Iterable[TaskSpec], now: float) -> SyncResult:
        """Make the manifest's tasks those of the job; changes nothing if the stream of tasks raises."""
        with self.group() as sql:
            # Expanding the tasks takes time.
            self._connection.take_time()
            entered = enter(sql, specs, now)
            if self._connection.shared:
                # No heartbeat was sent meanwhile.
                self._give_sign(sql)
            return entered

    def recover(self, now: float) -> int:
        """Mark tasks that a killed run was submitting as uncertain; return their number."""
        with self.group() as sql:
            left = self.records(self.numbers(TaskState.SUBMITTING))
            self._cut_off(sql, left, now)
        return len(left)

    def import_ids(self, rescued: Iterable[Rescued], now: float, *, timeout: float) -> int:
        """Assign rescued task ids to their tasks; return how many of these answers the manifest now knows.

        Skips tasks that another worker owns: it may be about to learn the same.
        """
        known = 0
        with self.group() as sql:
            for answer in rescued:
                row = sql.execute(
                    "SELECT tasks.id, attempts.number = tasks.attempt AND tasks.state IN ('submitting', 'uncertain')"
                    " FROM attempts JOIN tasks ON tasks.id = attempts.task WHERE attempts.key = ?"
                    f"{self._free_or_mine('AND')}{self._connection.for_update('tasks')}",
                    (answer.key,),
                ).fetchone()
                if row is None:
                    continue
                known += 1
                if row[1]:
                    task = self.task(row[0])
                    self.accepted(task, answer.task_ids, deadline=answer.at + timeout, why="rescued", now=now)
                else:
                    sql.execute(
                        "UPDATE attempts SET task_ids = coalesce(task_ids, ?) WHERE key = ?",
                        (json.dumps(list(answer.task_ids)), answer.key),
                    )
        return known

    # Moving to another place

    def is_empty(self) -> bool:
        """Return whether it has neither tasks nor runs."""
        return not self._connection.rows("SELECT 1 FROM tasks UNION ALL SELECT 1 FROM runs LIMIT 1")

    def size(self) -> int:
        """Return the number of tasks, including those no longer in the job."""
        return int(self._connection.rows("SELECT count(*) FROM tasks")[0][0])

    def every(self, table: str) -> Iterator[tuple[Any, ...]]:
        """Yield the column names of a table, then all its rows."""
        columns = self._connection.columns(table)
        yield columns
        yield from self._connection.each(f"SELECT {_quoted(columns)} FROM {table}")

    def take_over(self, table: str, rows: Iterator[tuple[Any, ...]]) -> None:
        """Replace the contents of a table with rows from `every` of another manifest."""
        columns = next(rows)
        insert = f"INSERT INTO {table} ({_quoted(columns)}) VALUES ({marks(columns)})"
        with self.group() as sql:
            if self._connection.rows(f"SELECT 1 FROM {table} LIMIT 1"):
                # Every new manifest has an id of its own, and a row of zero totals.
                sql.execute(f"DELETE FROM {table}")
            while page := list(itertools.islice(rows, _PAGE)):
                sql.executemany(insert, page)

    def number_on(self, table: str) -> None:
        """Continue the numbering of new rows after the existing ones."""
        with self.group():
            self._connection.number_on(table)

    def knows_task_id(self, task_id: str) -> bool:
        """Return whether any attempt has this task id."""
        elements = self._connection.elements("attempts.task_ids")
        sql = f"SELECT 1 FROM attempts, {elements} WHERE element.value = ? LIMIT 1"
        return self._connection.row(sql, (task_id,)) is not None

    def numbers(self, state: TaskState) -> array[int]:
        """Return the numbers of in-flight tasks in a state that no worker owns, in the job's order; for `own_tasks`."""
        # Naming the states of the index `tasks_open` lets the database use it.
        sql = (
            "SELECT id FROM tasks WHERE state IN ('submitting', 'accepted', 'uncertain') AND state = ?"
            f"{self._free('AND')} ORDER BY ordinal IS NULL, ordinal, id"
        )
        return self._connection.numbers(sql, (state,))

    def tasks(self, state: TaskState) -> list[TaskRecord]:
        """Return all tasks in a state, in the job's order."""
        rows = self._connection.rows(
            f"SELECT {TASK_COLUMNS} FROM tasks WHERE state = ? ORDER BY ordinal IS NULL, ordinal, id",
            (state,),
        )
        return [task_record(row) for row in rows]
