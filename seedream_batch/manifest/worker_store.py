"""Runs that share one manifest as workers: leases, and what happens to the tasks of expired workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

from seedream_batch.manifest.base_store import SILENT
from seedream_batch.manifest.db.connection import CLOCK, LEASE, Sql
from seedream_batch.manifest.task_queue import TaskQueue
from seedream_batch.manifest.task_store import TaskStore
from seedream_batch.model.task import TaskRecord, TaskState

GRACE = 10.0
"""Seconds that a worker has to reconnect after its session ended: the server may have been restarted."""

_PLANNED = "state = 'planned' AND ordinal IS NOT NULL"
_IN_FLIGHT = "state IN ('submitting', 'accepted', 'uncertain')"
_TO_FETCH = "id IN (SELECT task FROM images WHERE state = 'announced')"

CUT_OFF = "the run ended between sending and an answer"


@dataclass(frozen=True, slots=True)
class Beat:
    """What a worker learns from its heartbeat: the other active workers, and how many of them it expired."""

    others: frozenset[int]
    expired: int
    in_doubt: int
    """Tasks that the expired workers were submitting."""


@dataclass(frozen=True, slots=True)
class Expired:
    """The number of expired workers, and of tasks that they were submitting."""

    workers: int = 0
    in_doubt: int = 0


class WorkerStore(TaskQueue, TaskStore):
    """The workers of a shared manifest. Leases use the clock of the server, which all workers share."""

    def send_heartbeat(self, now: float, host: str) -> Beat:
        """Renew this worker's lease, expire dead workers, and return the others."""
        with self.group() as sql:
            self._give_sign(sql)
            expired = self.expire_workers(now, host)
            others = frozenset(run for run, _, _ in self.others())
        return Beat(others, expired.workers, expired.in_doubt)

    def alive(self) -> None:
        """Only renew this worker's lease: while the tasks of its job are expanded."""
        with self.group() as sql:
            self._give_sign(sql)

    def _give_sign(self, sql: Sql) -> None:
        """Renew the lease of this worker, as part of a transaction."""
        sql.execute(
            f"UPDATE workers SET until = {CLOCK} + ?, gone = NULL WHERE run = ?", (LEASE, self._connection.worker)
        )

    def expire_workers(self, now: float, host: str) -> Expired:
        """Expire workers whose lease ran out or whose session has been gone for `GRACE` seconds.

        The tasks they own become free; those they were submitting become uncertain. `host` is the name of this machine,
        on which an ended process needs no grace period.
        """
        workers = in_doubt = 0
        with self.group() as sql:
            rows = sql.execute(
                f"SELECT run, until < {CLOCK}, {CLOCK} - gone, pid, host FROM workers JOIN runs ON runs.id = run"
                " WHERE run != ? ORDER BY run",
                (self._connection.worker or 0,),
            ).fetchall()
            # Query this after the rows: a worker's session exists before its row does.
            here = self._connection.present()
            for run, over, gone, pid, of in rows:
                is_gone = run not in here and ((gone or 0.0) > GRACE or (of == host and not _is_alive(pid)))
                if over or is_gone:
                    doubts = self._take_away(sql, run, now, is_gone=is_gone)
                    if doubts is not None:
                        workers, in_doubt = workers + 1, in_doubt + doubts
                elif (run in here) != (gone is None):
                    self._note(sql, run, gone=run not in here)
        return Expired(workers, in_doubt)

    def _note(self, sql: Sql, run: int, *, gone: bool) -> None:
        """Record that the session of a worker has ended, or that a new one exists."""
        since = CLOCK if gone else "NULL"
        sql.execute(
            f"UPDATE workers SET gone = {since} WHERE run IN"
            " (SELECT run FROM workers WHERE run = ? FOR NO KEY UPDATE SKIP LOCKED)",
            (run,),
        )

    def _take_away(self, sql: Sql, run: int, now: float, *, is_gone: bool) -> int | None:
        """Expire a worker; return the number of tasks it was submitting, None if it was not expired."""
        # A worker in the middle of a transaction is alive.
        if not self._connection.may_expire(run):
            return None
        # Another worker may have expired it already, or its last transaction may have renewed the lease.
        row = sql.execute(f"SELECT until < {CLOCK} FROM workers WHERE run = ?", (run,)).fetchone()
        if row is None or not (is_gone or row[0]):
            return None
        # The session of a stopped process would block others with its other locks.
        self._connection.end_session(run)
        self._merge_totals(sql, run)
        sql.execute("UPDATE runs SET ended_at = ?, outcome = ? WHERE id = ? AND ended_at IS NULL", (now, SILENT, run))
        return self._cut_off_of(sql, run, now)

    def _cut_off_of(self, sql: Sql, run: int, now: float) -> int:
        """Mark tasks that a worker was submitting as uncertain; return their number."""
        rows = sql.execute("SELECT id FROM tasks WHERE state = 'submitting' AND worker = ?", (run,)).fetchall()
        self._cut_off(sql, self.records([row[0] for row in rows]), now)
        return len(rows)

    def _merge_totals(self, sql: Sql, run: int) -> None:
        """Add a worker's costs and reservations to the totals, and delete the worker."""
        sql.execute(
            "UPDATE totals SET reserved_images = totals.reserved_images + workers.reserved_images,"
            " reserved = totals.reserved + workers.reserved, images = totals.images + workers.images,"
            " cost = totals.cost + workers.cost FROM workers WHERE run = ?",
            (run,),
        )
        sql.execute("DELETE FROM lines USING workers WHERE lines.id = workers.line AND run = ?", (run,))
        sql.execute("DELETE FROM workers WHERE run = ?", (run,))

    def _cut_off(self, sql: Sql, tasks: Sequence[TaskRecord], now: float) -> None:
        for task in tasks:
            self._move(sql, task, TaskState.UNCERTAIN, CUT_OFF, now, reason=CUT_OFF, code="", held=0)
            self._attempt(sql, task, "uncertain")

    def lock_startup(self, wait: Callable[[], None]) -> None:
        """Keep other workers from joining; calls `wait` until the present holder has released the lock."""
        self._connection.lock_startup(wait)

    def unlock_startup(self) -> None:
        """Let other workers join."""
        self._connection.unlock_startup()

    def starting_worker(self) -> tuple[int, bool] | None:
        """Return the session that holds the startup lock, and whether it is a worker's, which has a lease."""
        return self._connection.startup_lock_holder()

    def others(self) -> list[tuple[int, int, str]]:
        """Return the other workers: number, process id and host."""
        rows = self._connection.rows(
            "SELECT run, pid, host FROM workers JOIN runs ON runs.id = run WHERE run != ? ORDER BY run",
            (self._connection.worker or 0,),
        )
        return [(row[0], row[1], row[2]) for row in rows]

    def accounts_at_work(self) -> set[int]:
        """Return the accounts that the other workers use."""
        if not self._connection.has_workers:
            return set()
        rows = self._connection.rows(
            "SELECT DISTINCT account FROM workers WHERE run != ? AND account IS NOT NULL",
            (self._connection.worker or 0,),
        )
        return {int(row[0]) for row in rows}

    def at_work(self) -> list[int]:
        """Return the numbers of all workers, including this one."""
        return [row[0] for row in self._connection.rows("SELECT run FROM workers ORDER BY run")]

    def other_sessions(self) -> bool:
        """Return whether any other worker has a session."""
        present = self._connection.present()
        return any(run in present for run, _, _ in self.others())

    def wanted(self) -> int:
        """Return the number of tasks that the job asks for."""
        return int(self._connection.rows("SELECT count(*) FROM tasks WHERE ordinal IS NOT NULL")[0][0])

    def own_tasks(self, numbers: Sequence[int]) -> list[TaskRecord]:
        """Take ownership of those of these tasks (at most a few hundred at a time) that are free; return their records.

        In the given order; a single run gets all of them.
        """
        if not self._connection.shared or not numbers:
            return self.records(numbers)
        with self.group() as sql:
            condition, value = self._connection.in_list("id", numbers)
            rows = sql.execute(
                f"UPDATE tasks SET worker = ? WHERE {condition}{self._free('AND')} RETURNING id",
                (self._connection.worker, value),
            ).fetchall()
        taken = {row[0] for row in rows}
        return self.records([number for number in numbers if number in taken])

    def release_tasks(self, but: Collection[int] = ()) -> set[int]:
        """Release this worker's unfinished tasks, `but` for these; return their numbers."""
        condition, value = self._connection.in_list("id", but)
        mine = f"{self._mine('AND')} AND NOT {condition}"
        with self.group() as sql:
            return {
                row[0]
                for waiting in (_PLANNED, _IN_FLIGHT, _TO_FETCH)
                for row in sql.execute(
                    f"UPDATE tasks SET worker = NULL WHERE {waiting}{mine} RETURNING id", (value,)
                ).fetchall()
            }

    def left_to_do(self, but: Collection[int], *, resend: bool) -> bool:
        """Return whether any unfinished task, `but` for these, is owned by nobody.

        Planned tasks count if they are selected, and uncertain ones with `resend` unless they are held.
        """
        condition, value = self._connection.in_list("tasks.id", but)
        in_flight = (
            f"tasks WHERE {_IN_FLIGHT} AND (state = 'accepted' OR (state = 'uncertain' AND held = 0 AND {resend}))"
        )
        return any(
            self._connection.row(f"SELECT 1 FROM {rows}{self._free('AND')} AND NOT {condition} LIMIT 1", (value,))
            for rows in (self._planned, in_flight, f"tasks WHERE {_TO_FETCH}")
        )

    def others_have(self, *, settling: bool = False) -> bool:
        """Return whether others own an unfinished task; with `settling`, one that may free a reservation."""
        theirs = f"NOT {self._in_no_hands()} AND tasks.worker != {self._connection.worker or 0}"
        kinds = ("state IN ('submitting', 'accepted')",) if settling else (_PLANNED, _IN_FLIGHT, _TO_FETCH)
        return any(self._connection.row(f"SELECT 1 FROM tasks WHERE {kind} AND {theirs} LIMIT 1") for kind in kinds)

    def end_run(self, *, now: float, outcome: str) -> None:
        """Record that the run ended, and why; a worker is removed."""
        with self.group() as sql:
            sql.execute("UPDATE runs SET ended_at = ?, outcome = ? WHERE id = ?", (now, outcome, self._database.run))
            if self._connection.worker is not None:
                self._cut_off_of(sql, self._connection.worker, now)
                self._merge_totals(sql, self._connection.worker)
        self._connection.worker = None

    def leave(self, *, now: float, outcome: str) -> None:
        """Remove a worker after an error, unless it has left already."""
        if self._connection.worker is not None:
            self.end_run(now=now, outcome=outcome)

    def detach(self) -> None:
        """Stop being a worker on this connection, whatever happened to the worker's row."""
        self._connection.worker = None


def _is_alive(pid: int) -> bool:
    """Return whether a process exists on this machine."""
    with suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True
