"""What every part of the manifest stands on: the connection, the facts, and moves that are guarded and logged."""

from __future__ import annotations

import secrets
import sqlite3
from pathlib import Path

from seedream_batch.errors import StaleTransition
from seedream_batch.manifest.connection import Connection, told
from seedream_batch.manifest.rows import TASK_COLUMNS, task_record
from seedream_batch.manifest.schema import check_version, migrate
from seedream_batch.model.task import EDGES, TaskRecord, TaskState


class ManifestCore:
    """A manifest open for writing; see `Manifest`, which has all its parts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = Connection(path, check=check_version)
        self._run: int | None = None
        self.group = self._connection.transaction
        self.wait_for_lock = self._connection.wait_for_lock
        try:
            with told(path):
                migrate(self._connection.raw, str(path))
            with self.group() as sql:
                sql.execute("INSERT OR IGNORE INTO facts VALUES ('manifest_id', ?)", (secrets.token_hex(6),))
            self.id = self.fact("manifest_id")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def fact(self, name: str) -> str:
        """A fact by its name, empty if it was never told."""
        row = self._connection.row("SELECT value FROM facts WHERE name = ?", (name,))
        return str(row[0]) if row else ""

    def tell(self, facts: dict[str, str]) -> None:
        """Stores facts: `job`, `job_file`, `service`, `created_at`."""
        with self.group() as sql:
            sql.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", list(facts.items()))

    def was_cut_off(self) -> bool:
        """Whether the last run ended without a word, and may have left unfinished files."""
        row = self._connection.row("SELECT ended_at FROM runs ORDER BY id DESC LIMIT 1")
        return row is not None and row[0] is None

    def in_flight(self) -> int:
        """Tasks that only the service they were sent to knows anything of."""
        sql = "SELECT count(*) FROM tasks WHERE state IN ('submitting', 'accepted', 'uncertain')"
        return int(self._connection.rows(sql)[0][0])

    def begin_run(self, *, now: float, pid: int, host: str, version: str, service: str) -> int:
        """Records that a run began; later events name it."""
        with self.group() as sql:
            cursor = sql.execute(
                "INSERT INTO runs (started_at, pid, host, version, service) VALUES (?, ?, ?, ?, ?)",
                (now, pid, host, version, service),
            )
            self._run = cursor.lastrowid
        return int(self._run or 0)

    def end_run(self, *, now: float, outcome: str) -> None:
        """Records that the run ended, and why."""
        with self.group() as sql:
            sql.execute("UPDATE runs SET ended_at = ?, outcome = ? WHERE id = ?", (now, outcome, self._run))

    def task(self, number: int) -> TaskRecord:
        """One task."""
        return task_record(self._connection.rows(f"SELECT {TASK_COLUMNS} FROM tasks WHERE id = ?", (number,))[0])

    def _move(
        self,
        sql: sqlite3.Connection,
        task: TaskRecord,
        new: TaskState,
        why: str,
        now: float,
        **columns: object,
    ) -> None:
        """From the state that the record names, and the attempt: an answer to an earlier one moves nothing."""
        old = task.state
        if new not in EDGES[old]:
            raise StaleTransition(f"a task does not go from {old} to {new}")
        sets = {"state": new, "updated_at": now, **columns}
        assignments = ", ".join(f"{name} = ?" for name in sets)
        cursor = sql.execute(
            f"UPDATE tasks SET {assignments} WHERE id = ? AND state = ? AND attempt = ?",
            (*sets.values(), task.id, old, task.attempt),
        )
        one_row(cursor, f"task {task.id} in state {old}, attempt {task.attempt},")
        self._log(sql, task.id, old, new, why, now)

    def _leaving(self, task: TaskRecord, *states: TaskState) -> None:
        """The edges alone would let the outcome of a submission move a task that was looked at, and the other way."""
        if task.state not in states:
            expected = " or ".join(states)
            raise StaleTransition(f"task {task.id} is {task.state}, not {expected}; nothing was changed")

    def _log(
        self, sql: sqlite3.Connection, task: int, old: str, new: str, why: str, now: float, *, image: int | None = None
    ) -> None:
        sql.execute(
            "INSERT INTO events (at, run, task, image, old, new, why) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (now, self._run, task, image, old, new, why),
        )

    def _attempt(self, sql: sqlite3.Connection, task: TaskRecord, outcome: str, *, task_ids: str | None = None) -> None:
        cursor = sql.execute(
            "UPDATE attempts SET outcome = ?, task_ids = coalesce(?, task_ids) WHERE task = ? AND number = ?",
            (outcome, task_ids, task.id, task.attempt),
        )
        one_row(cursor, f"attempt {task.attempt} of task {task.id}")


def one_row(cursor: sqlite3.Cursor, what: str) -> None:
    if cursor.rowcount != 1:
        raise StaleTransition(f"{what} was not found; nothing was changed")
