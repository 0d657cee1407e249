"""The manifest as the one run that holds it sees it: whole transactions, guarded moves, reserved money."""

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
    """Ends a transaction that is not to be kept."""


class Manifest(DecisionStore, MaintenanceStore, WorkerStore):
    """The manifest open for writing. One process holds it at a time (see `lock`), one thread uses it at a time.

    Opened `shared`, which only a server allows, processes hold it together, each for a run that is a worker.
    Every public method is one transaction, durable when it returns; within `group()` they share one. A write that
    finds another state than it names changes nothing and raises `StaleTransition`.
    """

    def __init__(self, place: Place, *, shared: bool = False) -> None:
        """Raises `ManifestLocked` when a run holds it; waits a while for workers that were just cut off."""
        super().__init__(place, shared=shared)
        if self._connection.has_workers and not shared:
            try:
                while self.others():
                    # None of them has a session, or this one would not have come so far.
                    self.expire_workers(time.time(), platform.node())
                    if self.others():
                        time.sleep(0.2)
            except BaseException:
                self.close()
                raise

    @contextmanager
    def taken_back(self) -> Iterator[None]:
        """Whatever is written within is only there to be looked at within: afterwards nothing has changed."""
        with suppress(_TakenBack), self.group():
            yield
            raise _TakenBack

    def enter(self, specs: Iterable[TaskSpec], now: float) -> SyncResult:
        """Makes the job's tasks those of the manifest, or changes nothing if the stream of tasks raises."""
        with self.group() as sql:
            # The tasks are made meanwhile.
            self._connection.take_time()
            entered = enter(sql, specs, now)
            if self.shared:
                # That was no sign of life until now.
                self._give_sign(sql)
            return entered

    def recover(self, now: float) -> int:
        """What a killed run left in the middle of a submission becomes uncertain; how many there were."""
        with self.group() as sql:
            left = self.records(self.numbers(TaskState.SUBMITTING))
            self._cut_off(sql, left, now)
        return len(left)

    def import_ids(self, rescued: Iterable[Rescued], now: float, *, timeout: float) -> int:
        """Task ids that an earlier run could not store go to their tasks; how many of these answers are known now.

        Those of tasks that another worker has in hand are not: that one may be about to learn the same.
        """
        known = 0
        with self.group() as sql:
            for one in rescued:
                row = sql.execute(
                    "SELECT tasks.id, attempts.number = tasks.attempt AND tasks.state IN ('submitting', 'uncertain')"
                    " FROM attempts JOIN tasks ON tasks.id = attempts.task WHERE attempts.key = ?"
                    f"{self._free_or_mine('AND')}{self._connection.for_update('tasks')}",
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
        """The tasks in flight in a state that nobody has in hand, in the order of the job; for `own_tasks`."""
        # The states are those of the index `tasks_open`, so that it is used.
        sql = (
            "SELECT id FROM tasks WHERE state IN ('submitting', 'accepted', 'uncertain') AND state = ?"
            f"{self._free('AND')} ORDER BY ordinal IS NULL, ordinal, id"
        )
        return self._connection.numbers(sql, (state,))

    def tasks(self, state: TaskState) -> list[TaskRecord]:
        """All tasks in a state, in the order of the job."""
        rows = self._connection.rows(
            f"SELECT {TASK_COLUMNS} FROM tasks WHERE state = ? ORDER BY ordinal IS NULL, ordinal, id",
            (state,),
        )
        return [task_record(row) for row in rows]
