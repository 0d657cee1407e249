"""What every part of the manifest stands on: the connection, the facts, and moves that are guarded and logged."""

from __future__ import annotations

import secrets

from seedream_batch.errors import StaleTransition
from seedream_batch.manifest.connection import Cursor, Sql
from seedream_batch.manifest.place import connect
from seedream_batch.manifest.rows import TASK_COLUMNS, task_record
from seedream_batch.model.place import Place
from seedream_batch.model.task import EDGES, TaskRecord, TaskState

MOVED_TO = "moved_to"
"""The fact that says where a manifest has gone; from then on it is only there to be looked at."""


class ManifestCore:
    """A manifest open for writing; see `Manifest`, which has all its parts."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._connection = connect(place)
        self.name = self._connection.name
        """The manifest as people know it."""
        self._run: int | None = None
        self.group = self._connection.transaction
        self.wait_for_lock = self._connection.wait_for_lock
        try:
            with self.group() as sql:
                sql.execute(
                    "INSERT INTO facts VALUES ('manifest_id', ?) ON CONFLICT DO NOTHING", (secrets.token_hex(6),)
                )
            self.id = self.fact("manifest_id")
        except BaseException:
            self.close()
            raise

    @property
    def quick(self) -> bool:
        """Whether statements take microseconds, so that an event loop may wait for them."""
        return self._connection.quick

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._connection.in_transaction

    @property
    def changes(self) -> int:
        """A number that grows with what is changed."""
        return self._connection.changes

    def again(self) -> bool:
        """Makes a line that is lost anew; see `Connection.again`."""
        return self._connection.again()

    def hurry(self) -> None:
        """From here on, and on any thread, waits for no line any more."""
        self._connection.hurry()

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
            sql.executemany(
                "INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                list(facts.items()),
            )

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
            row = sql.execute(
                "INSERT INTO runs (started_at, pid, host, version, service) VALUES (?, ?, ?, ?, ?) RETURNING id",
                (now, pid, host, version, service),
            ).fetchone()
        self._run = int(row[0])
        return self._run

    def end_run(self, *, now: float, outcome: str) -> None:
        """Records that the run ended, and why."""
        with self.group() as sql:
            sql.execute("UPDATE runs SET ended_at = ?, outcome = ? WHERE id = ?", (now, outcome, self._run))

    def task(self, number: int) -> TaskRecord:
        """One task."""
        return task_record(self._connection.rows(f"SELECT {TASK_COLUMNS} FROM tasks WHERE id = ?", (number,))[0])

    def _move(
        self,
        sql: Sql,
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

    def _log(self, sql: Sql, task: int, old: str, new: str, why: str, now: float, *, image: int | None = None) -> None:
        sql.execute(
            "INSERT INTO events (at, run, task, image, old, new, why) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (now, self._run, task, image, old, new, why),
        )

    def _attempt(self, sql: Sql, task: TaskRecord, outcome: str, *, task_ids: str | None = None) -> None:
        cursor = sql.execute(
            "UPDATE attempts SET outcome = ?, task_ids = coalesce(?, task_ids) WHERE task = ? AND number = ?",
            (outcome, task_ids, task.id, task.attempt),
        )
        one_row(cursor, f"attempt {task.attempt} of task {task.id}")


def one_row(cursor: Cursor, what: str) -> None:
    if cursor.rowcount != 1:
        raise StaleTransition(f"{what} was not found; nothing was changed")
