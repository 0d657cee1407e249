"""Runs that work side by side on one manifest: whose word counts, and what becomes of what the others had in hand."""

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
"""Seconds after the session of a worker has ended in which it may come back: a server may have been started anew."""

_PLANNED = "state = 'planned' AND ordinal IS NOT NULL"
_IN_FLIGHT = "state IN ('submitting', 'accepted', 'uncertain')"
_TO_FETCH = "id IN (SELECT task FROM images WHERE state = 'announced')"

CUT_OFF = "the run ended between sending and an answer"


@dataclass(frozen=True, slots=True)
class Beat:
    """What a worker hears when it is heard of: which others are at work, and how many of those it has taken away."""

    others: frozenset[int]
    buried: int
    in_doubt: int
    """Tasks that those were just sending."""


@dataclass(frozen=True, slots=True)
class Expired:
    """Workers that were taken away, and how many tasks they were just sending."""

    workers: int = 0
    in_doubt: int = 0


class WorkerStore(TaskQueue, TaskStore):
    """The workers of a shared manifest. Their leases are on the clock of the server, which they all share."""

    def send_heartbeat(self, now: float, host: str) -> Beat:
        """This worker is heard of, and hears of others: those that are gone are taken away."""
        with self.group() as sql:
            self._give_sign(sql)
            buried = self.expire_workers(now, host)
            others = frozenset(run for run, _, _ in self.others())
        return Beat(others, buried.workers, buried.in_doubt)

    def alive(self) -> None:
        """This worker is heard of, without any work for others: while the tasks of its job are made."""
        with self.group() as sql:
            self._give_sign(sql)

    def _give_sign(self, sql: Sql) -> None:
        """The lease of this worker begins anew, as part of a transaction."""
        sql.execute(
            f"UPDATE workers SET until = {CLOCK} + ?, gone = NULL WHERE run = ?", (LEASE, self._connection.worker)
        )

    def expire_workers(self, now: float, host: str) -> Expired:
        """Takes away the workers whose lease is over, or whose session has been gone for a while.

        What they had in hand is free; what they were just sending is uncertain. `host` is the name of this machine, on
        which a process that has ended needs no while.
        """
        workers = in_doubt = 0
        with self.group() as sql:
            rows = sql.execute(
                f"SELECT run, until < {CLOCK}, {CLOCK} - gone, pid, host FROM workers JOIN runs ON runs.id = run"
                " WHERE run != ? ORDER BY run",
                (self._connection.worker or 0,),
            ).fetchall()
            # Behind the rows: a worker is present before it is among them.
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
        """The session of a worker has ended, or a new one is there."""
        since = CLOCK if gone else "NULL"
        sql.execute(
            f"UPDATE workers SET gone = {since} WHERE run IN"
            " (SELECT run FROM workers WHERE run = ? FOR NO KEY UPDATE SKIP LOCKED)",
            (run,),
        )

    def _take_away(self, sql: Sql, run: int, now: float, *, is_gone: bool) -> int | None:
        """How many tasks the worker was just sending; None if it was not taken away."""
        # One that is in the middle of a transaction is heard of in a moment.
        if not self._connection.may_expire(run):
            return None
        # Somebody else may just have done so; and at the end of a transaction there may have been a sign of life.
        row = sql.execute(f"SELECT until < {CLOCK} FROM workers WHERE run = ?", (run,)).fetchone()
        if row is None or not (is_gone or row[0]):
            return None
        # One that was stopped holds up others with whatever else its session holds.
        self._connection.end_session(run)
        self._merge_totals(sql, run)
        sql.execute("UPDATE runs SET ended_at = ?, outcome = ? WHERE id = ? AND ended_at IS NULL", (now, SILENT, run))
        return self._cut_off_of(sql, run, now)

    def _cut_off_of(self, sql: Sql, run: int, now: float) -> int:
        """What a worker was just sending is uncertain; how many tasks these are."""
        rows = sql.execute("SELECT id FROM tasks WHERE state = 'submitting' AND worker = ?", (run,)).fetchall()
        self._cut_off(sql, self.records([row[0] for row in rows]), now)
        return len(rows)

    def _merge_totals(self, sql: Sql, run: int) -> None:
        """What a worker spent and holds becomes part of the totals; then it is no worker any more."""
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
        """Keeps other workers from joining; `wait` is called until one that does the same has let others in."""
        self._connection.lock_startup(wait)

    def unlock_startup(self) -> None:
        """Lets other workers join."""
        self._connection.unlock_startup()

    def starting_worker(self) -> tuple[int, bool] | None:
        """The session that keeps others out, and whether it is that of a worker, which has a lease."""
        return self._connection.startup_lock_holder()

    def others(self) -> list[tuple[int, int, str]]:
        """The other workers: number, process and machine."""
        rows = self._connection.rows(
            "SELECT run, pid, host FROM workers JOIN runs ON runs.id = run WHERE run != ? ORDER BY run",
            (self._connection.worker or 0,),
        )
        return [(row[0], row[1], row[2]) for row in rows]

    def accounts_at_work(self) -> set[int]:
        """The accounts that the other workers send tasks with."""
        if not self._connection.has_workers:
            return set()
        rows = self._connection.rows(
            "SELECT DISTINCT account FROM workers WHERE run != ? AND account IS NOT NULL",
            (self._connection.worker or 0,),
        )
        return {int(row[0]) for row in rows}

    def at_work(self) -> list[int]:
        """The numbers of all workers, this one's among them."""
        return [row[0] for row in self._connection.rows("SELECT run FROM workers ORDER BY run")]

    def other_sessions(self) -> bool:
        """Whether the session of any other worker is there."""
        present = self._connection.present()
        return any(run in present for run, _, _ in self.others())

    def wanted(self) -> int:
        """How many tasks the job asks for."""
        return int(self._connection.rows("SELECT count(*) FROM tasks WHERE ordinal IS NOT NULL")[0][0])

    def own_tasks(self, numbers: Sequence[int]) -> list[TaskRecord]:
        """Those of these tasks (at most a few hundred at a time) that this worker has in hand from now on.

        In the order they are given; all of them, where a run is alone.
        """
        if not self.shared or not numbers:
            return self.records(numbers)
        with self.group() as sql:
            condition, value = self._connection.among("id", numbers)
            rows = sql.execute(
                f"UPDATE tasks SET worker = ? WHERE {condition}{self._free('AND')} RETURNING id",
                (self._connection.worker, value),
            ).fetchall()
        taken = {row[0] for row in rows}
        return self.records([number for number in numbers if number in taken])

    def release_tasks(self, but: Collection[int] = ()) -> set[int]:
        """Others may go on with whatever this worker has in hand, `but` for these, and is not ended: these tasks."""
        condition, value = self._connection.among("id", but)
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
        """Whether any task that waits for something, `but` for these, is in nobody's hands.

        Those that are planned count if they are chosen, and uncertain ones with `resend`, unless they are held.
        """
        condition, value = self._connection.among("tasks.id", but)
        in_flight = (
            f"tasks WHERE {_IN_FLIGHT} AND (state = 'accepted' OR (state = 'uncertain' AND held = 0 AND {resend}))"
        )
        return any(
            self._connection.row(f"SELECT 1 FROM {one}{self._free('AND')} AND NOT {condition} LIMIT 1", (value,))
            for one in (self._planned, in_flight, f"tasks WHERE {_TO_FETCH}")
        )

    def others_have(self, *, settling: bool = False) -> bool:
        """Whether others have a task in hand that is not ended; with `settling`, one that may free money."""
        theirs = f"NOT {self._in_no_hands()} AND tasks.worker != {self._connection.worker or 0}"
        kinds = ("state IN ('submitting', 'accepted')",) if settling else (_PLANNED, _IN_FLIGHT, _TO_FETCH)
        return any(self._connection.row(f"SELECT 1 FROM tasks WHERE {one} AND {theirs} LIMIT 1") for one in kinds)

    def end_run(self, *, now: float, outcome: str) -> None:
        """Records that the run ended, and why; a worker leaves."""
        with self.group() as sql:
            sql.execute("UPDATE runs SET ended_at = ?, outcome = ? WHERE id = ?", (now, outcome, self._run))
            if self._connection.worker is not None:
                self._cut_off_of(sql, self._connection.worker, now)
                self._merge_totals(sql, self._connection.worker)
        self._connection.worker = None

    def leave(self, *, now: float, outcome: str) -> None:
        """A worker that something went wrong with leaves, unless it has done so."""
        if self._connection.worker is not None:
            self.end_run(now=now, outcome=outcome)

    def detach(self) -> None:
        """This connection is no worker's any more, whatever became of that."""
        self._connection.worker = None


def _is_alive(pid: int) -> bool:
    """Whether a process of this machine is there."""
    with suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True
