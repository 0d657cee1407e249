"""The base of all stores of the manifest: the connection, facts, and guarded, logged transitions."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from seedream_batch.errors import StaleTransition
from seedream_batch.manifest.answer_store import AnswerStore
from seedream_batch.manifest.budget_ledger import BudgetLedger
from seedream_batch.manifest.database import Database, Event, all_rows
from seedream_batch.manifest.db.connection import Sql, marks
from seedream_batch.manifest.db.open import connect
from seedream_batch.manifest.facts import SWEPT, Facts
from seedream_batch.manifest.rows import TASK_COLUMNS, task_record
from seedream_batch.model.locations import Place
from seedream_batch.model.task import EDGES, TaskRecord, TaskState

SILENT = "silent"
"""Outcome of a run whose worker expired."""

_OPEN = (
    "SELECT id FROM tasks WHERE state IN ('submitting', 'accepted', 'uncertain')"
    " UNION SELECT id FROM tasks WHERE state = 'lost' AND task_ids IS NOT NULL"
    " UNION SELECT task FROM images WHERE state = 'announced'"
)
"""Tasks that only the account they were sent with can finish, each part with an index of its own."""


@dataclass(frozen=True, slots=True)
class Move:
    """A transition of a task from the state and attempt of its record: why, when (unix seconds), and columns to set."""

    task: TaskRecord
    why: str
    now: float
    columns: Mapping[str, object]


class BaseStore:
    """A manifest open for writing; see `Manifest`, which combines all stores."""

    def __init__(self, place: Place, *, shared: bool = False) -> None:
        self.place = place
        self.connection = self._connection = connect(place, shared=shared)
        self._database = Database(self._connection)
        self.facts = Facts(self._connection)
        self.answers = AnswerStore(self._database)
        self.budget = BudgetLedger(self._database)
        self.name = self._connection.name
        """The manifest for people."""
        self.planned_again = 0
        """A number that grows whenever a task becomes planned again."""
        self.group = self._connection.transaction
        try:
            with self.group() as sql:
                sql.execute(
                    "INSERT INTO facts VALUES ('manifest_id', ?) ON CONFLICT DO NOTHING", (secrets.token_hex(6),)
                )
            self.id = self.facts.get("manifest_id")
        except BaseException:
            self.close()
            raise

    @property
    def run(self) -> int | None:
        """The run that events are logged for."""
        return self._database.run

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def was_cut_off(self) -> bool:
        """Return whether a run since the last sweep was killed, and may have left unfinished files."""
        swept = int(self.facts.get(SWEPT) or 0)
        sql = "SELECT 1 FROM runs WHERE id > ? AND (ended_at IS NULL OR outcome = ?) AND id != ? LIMIT 1"
        return self._connection.row(sql, (swept, SILENT, self._database.run or 0)) is not None

    def swept(self) -> None:
        """Record that no unfinished files of earlier runs are left."""
        self.facts.set({SWEPT: str((self._database.run or 1) - 1)})

    def newest_run(self) -> float:
        """Return when the last of the other runs began or ended, in unix seconds of its own clock; 0 without any."""
        sql = "SELECT coalesce(max(started_at), 0), coalesce(max(ended_at), 0) FROM runs WHERE id != ?"
        return max(map(float, self._connection.rows(sql, (self._database.run or 0,))[0]))

    def open(self, *, verifies: bool) -> dict[int, int]:
        """Return the number of open tasks per account: in flight, uncertain, lost with a task id, or not all fetched.

        For a command that `verifies`, all tasks that the service may be asked about.
        """
        which = f"id IN ({_OPEN})" + (" OR task_ids IS NOT NULL" if verifies else "")
        rows = self._connection.rows(f"SELECT account, count(*) FROM tasks WHERE {which} GROUP BY account")
        return {int(account): int(count) for account, count in rows}

    def is_anothers(self, task: TaskRecord) -> bool:
        """Return whether a task was last sent with an account other than this run's."""
        sql = "SELECT 1 FROM tasks WHERE id = ? AND account != ?"
        return self._connection.row(sql, (task.id, self._database.account)) is not None

    def unite_accounts(self, accounts: Collection[int], account: int) -> None:
        """Assign the tasks of these accounts to one account."""
        condition, value = self._connection.in_list("account", accounts)
        with self.group() as sql:
            sql.execute(f"UPDATE tasks SET account = ? WHERE {condition} AND account != ?", (account, value, account))

    def one_joins(self) -> None:
        """On a shared manifest, keep other workers from joining until the transaction ends."""
        if self._connection.shared:
            self._connection.sql.execute("LOCK TABLE workers IN SHARE UPDATE EXCLUSIVE MODE")

    def begin_run(
        self, *, now: float, pid: int, host: str, version: str, service: str, account: int | None = None
    ) -> int:
        """Record the start of a run, which later events refer to. On a shared manifest, join the active workers.

        `account` is the number of the account that it sends tasks with, None if it does not ask the service.
        """
        with self.group() as sql:
            # Lock first, so that workers become visible in the order of their numbers.
            self.one_joins()
            row = sql.execute(
                "INSERT INTO runs (started_at, pid, host, version, service) VALUES (?, ?, ?, ?, ?) RETURNING id",
                (now, pid, host, version, service),
            ).fetchone()
            self._database.run = int(row[0])
            if self._connection.shared:
                self._connection.join(self._database.run, account)
            self._database.account = account or self._database.account
        return self._database.run

    def task(self, number: int) -> TaskRecord:
        """Return one task."""
        return task_record(self._connection.rows(f"SELECT {TASK_COLUMNS} FROM tasks WHERE id = ?", (number,))[0])

    def records(self, numbers: Sequence[int]) -> list[TaskRecord]:
        """Return these tasks (at most a few hundred at a time), in this order."""
        sql = f"SELECT {TASK_COLUMNS} FROM tasks WHERE id IN ({marks(numbers)})"
        by_number = {row[0]: task_record(row) for row in self._connection.rows(sql, numbers)}
        return [by_number[number] for number in numbers]

    def _move(self, sql: Sql, task: TaskRecord, new: TaskState, why: str, now: float, **columns: object) -> None:
        """Move a task from the state and attempt of its record; an answer to an earlier attempt changes nothing."""
        self._move_all(sql, new, [Move(task, why, now, columns)])

    def _move_all(self, sql: Sql, new: TaskState, moves: Sequence[Move]) -> None:
        """Move all tasks or none: the same transition, setting the same columns."""
        for move in moves:
            if new not in EDGES[move.task.state]:
                raise StaleTransition(f"a task does not go from {move.task.state} to {new}")
        self.planned_again += new is TaskState.PLANNED
        assignments = ", ".join(f"{name} = ?" for name in ("state", "updated_at", *moves[0].columns))
        cursor = sql.executemany(
            f"UPDATE tasks SET {assignments} WHERE id = ? AND state = ? AND attempt = ?",
            [
                (new, move.now, *move.columns.values(), move.task.id, move.task.state, move.task.attempt)
                for move in moves
            ],
        )
        task = moves[0].task
        all_rows(cursor, len(moves), f"task {task.id} in state {task.state}, attempt {task.attempt},")
        self._log_all(sql, [(move.now, move.task.id, None, move.task.state, new, move.why) for move in moves])

    def _leaving(self, task: TaskRecord, *states: TaskState) -> None:
        """Raise `StaleTransition` unless the task is in one of these states: `EDGES` alone would allow too much."""
        if task.state not in states:
            expected = " or ".join(states)
            raise StaleTransition(f"task {task.id} is {task.state}, not {expected}; nothing was changed")

    def _log(self, sql: Sql, task: int, old: str, new: str, why: str, now: float, *, image: int | None = None) -> None:
        self._log_all(sql, [(now, task, image, old, new, why)])

    def _log_all(self, sql: Sql, events: Sequence[Event]) -> None:
        self._database.log(sql, events)

    def _attempt(self, sql: Sql, task: TaskRecord, outcome: str) -> None:
        self._attempts(sql, outcome, [(task, None)])

    def _attempts(self, sql: Sql, outcome: str, tasks: Sequence[tuple[TaskRecord, str | None]]) -> None:
        """Record the outcome of each task's latest attempt, and its task ids if they are new."""
        cursor = sql.executemany(
            "UPDATE attempts SET outcome = ?, task_ids = coalesce(?, task_ids) WHERE task = ? AND number = ?",
            [(outcome, task_ids, task.id, task.attempt) for task, task_ids in tasks],
        )
        all_rows(cursor, len(tasks), f"attempt {tasks[0][0].attempt} of task {tasks[0][0].id}")
