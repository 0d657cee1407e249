"""Runs that share one manifest as workers: leases, and what happens to the tasks of expired workers."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass

from seedream_batch.manifest.database import Part
from seedream_batch.manifest.db.connection import CLOCK, LEASE, Sql
from seedream_batch.manifest.facts import Facts
from seedream_batch.manifest.task_store import TaskStore

GRACE = 10.0
"""Seconds that a worker has to reconnect after its session ended: the server may have been restarted."""

_SWEPT = "swept"
"""Fact: the last run whose unfinished files were removed."""

SILENT = "silent"
"""Outcome of a run whose worker expired."""


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


@dataclass(eq=False)
class WorkerStore(Part):
    """The runs of a manifest, which are workers if it is shared. Leases use the server's clock, which all share."""

    _facts: Facts
    _tasks: TaskStore

    # Runs

    def lock_joining(self) -> None:
        """On a shared manifest, keep other workers from joining until the transaction ends."""
        if self._connection.shared:
            self._connection.sql.execute("LOCK TABLE workers IN SHARE UPDATE EXCLUSIVE MODE")

    def begin_run(
        self, *, now: float, pid: int, host: str, version: str, service: str, account: int | None = None
    ) -> int:
        """Record the start of a run, which later events refer to. On a shared manifest, join the active workers.

        `account` is the number of the account that it sends tasks with, None if it does not ask the service.
        """
        with self._group() as sql:
            # Lock first, so that workers become visible in the order of their numbers.
            self.lock_joining()
            row = sql.execute(
                "INSERT INTO runs (started_at, pid, host, version, service) VALUES (?, ?, ?, ?, ?) RETURNING id",
                (now, pid, host, version, service),
            ).fetchone()
            self._database.run = int(row[0])
            if self._connection.shared:
                self._connection.join(self._database.run, account)
            self._database.account = account or self._database.account
        return self._database.run

    def end_run(self, *, now: float, outcome: str) -> None:
        """Record that the run ended, and why; a worker is removed."""
        with self._group() as sql:
            sql.execute("UPDATE runs SET ended_at = ?, outcome = ? WHERE id = ?", (now, outcome, self._database.run))
            if self._connection.worker is not None:
                self._tasks.cut_off(sql, f" AND worker = {self._connection.worker}", now)
                self._merge_totals(sql, self._connection.worker)
        self._connection.worker = None

    def leave(self, *, now: float, outcome: str) -> None:
        """Remove a worker after an error, unless it has left already."""
        if self._connection.worker is not None:
            self.end_run(now=now, outcome=outcome)

    def detach(self) -> None:
        """Stop being a worker on this connection, whatever happened to the worker's row."""
        self._connection.worker = None

    def was_cut_off(self) -> bool:
        """Return whether a run since the last sweep was killed, and may have left unfinished files."""
        swept = int(self._facts.get(_SWEPT) or 0)
        sql = "SELECT 1 FROM runs WHERE id > ? AND (ended_at IS NULL OR outcome = ?) AND id != ? LIMIT 1"
        return self._connection.row(sql, (swept, SILENT, self._database.run or 0)) is not None

    def mark_swept(self) -> None:
        """Record that no unfinished files of earlier runs are left."""
        self._facts.set({_SWEPT: str((self._database.run or 1) - 1)})

    def newest_run(self) -> float:
        """Return when the last of the other runs began or ended, in unix seconds of its own clock; 0 without any."""
        sql = "SELECT coalesce(max(started_at), 0), coalesce(max(ended_at), 0) FROM runs WHERE id != ?"
        return max(map(float, self._connection.rows(sql, (self._database.run or 0,))[0]))

    # Leases

    def send_heartbeat(self, now: float, host: str) -> Beat:
        """Renew this worker's lease, expire dead workers, and return the others."""
        with self._group():
            self.renew_lease()
            expired = self.expire(now, host)
            others = frozenset(run for run, _, _ in self.others())
        return Beat(others, expired.workers, expired.in_doubt)

    def renew_lease(self) -> None:
        """Only renew this worker's lease, without a look at the others: while the tasks of its job are expanded."""
        with self._group() as sql:
            sql.execute(
                f"UPDATE workers SET until = {CLOCK} + ?, gone = NULL WHERE run = ?", (LEASE, self._connection.worker)
            )

    def expire(self, now: float, host: str) -> Expired:
        """Expire workers whose lease ran out or whose session has been gone for `GRACE` seconds.

        The tasks they own become free; those they were submitting become uncertain. `host` is the name of this machine,
        on which an ended process needs no grace period.
        """
        workers = in_doubt = 0
        with self._group() as sql:
            rows = sql.execute(
                f"SELECT run, until < {CLOCK}, {CLOCK} - gone, pid, host FROM workers JOIN runs ON runs.id = run"
                " WHERE run != ? ORDER BY run",
                (self._connection.worker or 0,),
            ).fetchall()
            # Query this after the rows: a worker's session exists before its row does.
            present = self._connection.workers.present()
            for run, lease_over, gone_for, pid, worker_host in rows:
                ended = worker_host == host and not _is_alive(pid)
                dead = run not in present and ((gone_for or 0.0) > GRACE or ended)
                if lease_over or dead:
                    submitting = self._expire(sql, run, now, dead=dead)
                    if submitting is not None:
                        workers, in_doubt = workers + 1, in_doubt + submitting
                elif (run in present) != (gone_for is None):
                    self._record_session(sql, run, present=run in present)
        return Expired(workers, in_doubt)

    def _record_session(self, sql: Sql, run: int, *, present: bool) -> None:
        """Record that the session of a worker has ended, or that a new one exists."""
        since = "NULL" if present else CLOCK
        sql.execute(
            f"UPDATE workers SET gone = {since} WHERE run IN"
            " (SELECT run FROM workers WHERE run = ? FOR NO KEY UPDATE SKIP LOCKED)",
            (run,),
        )

    def _expire(self, sql: Sql, run: int, now: float, *, dead: bool) -> int | None:
        """Expire a worker; return the number of tasks it was submitting, None if it was not expired."""
        # A worker in the middle of a transaction is alive.
        if not self._connection.workers.may_expire(run):
            return None
        # Another worker may have expired it already, or its last transaction may have renewed the lease.
        row = sql.execute(f"SELECT until < {CLOCK} FROM workers WHERE run = ?", (run,)).fetchone()
        if row is None or not (dead or row[0]):
            return None
        # The session of a stopped process would block others with its other locks.
        self._connection.workers.end_session(run)
        self._merge_totals(sql, run)
        sql.execute("UPDATE runs SET ended_at = ?, outcome = ? WHERE id = ? AND ended_at IS NULL", (now, SILENT, run))
        return self._tasks.cut_off(sql, f" AND worker = {int(run)}", now)

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

    def others(self) -> list[tuple[int, int, str]]:
        """Return the other workers: number, process id and host."""
        rows = self._connection.rows(
            "SELECT run, pid, host FROM workers JOIN runs ON runs.id = run WHERE run != ? ORDER BY run",
            (self._connection.worker or 0,),
        )
        return [(row[0], row[1], row[2]) for row in rows]

    def accounts(self) -> set[int]:
        """Return the accounts that the other workers use."""
        if not self._connection.has_workers:
            return set()
        rows = self._connection.rows(
            "SELECT DISTINCT account FROM workers WHERE run != ? AND account IS NOT NULL",
            (self._connection.worker or 0,),
        )
        return {int(row[0]) for row in rows}

    def active(self) -> list[int]:
        """Return the numbers of all workers, including this one."""
        return [row[0] for row in self._connection.rows("SELECT run FROM workers ORDER BY run")]

    def other_sessions(self) -> bool:
        """Return whether any other worker has a session."""
        present = self._connection.workers.present()
        return any(run in present for run, _, _ in self.others())


def _is_alive(pid: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True
