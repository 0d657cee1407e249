"""Which tasks a run may work on: those it may buy, those in flight that are free, and its claims on them."""

from __future__ import annotations

import json
import time
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from seedream_batch.manifest.budget_ledger import BudgetLedger, Reservation
from seedream_batch.manifest.database import OneByOne, Part
from seedream_batch.manifest.db.connection import CLOCK, UNLIMITED, Sql, insert, marks
from seedream_batch.manifest.ownership import Ownership
from seedream_batch.manifest.rows import TASK_COLUMNS, read_tasks, task_record
from seedream_batch.manifest.task_store import TaskStore
from seedream_batch.manifest.transitions import Move, TaskTransitions
from seedream_batch.model.document import Json
from seedream_batch.model.job import Budget
from seedream_batch.model.task import TaskRecord, TaskState

_PLANNED = "state = 'planned' AND ordinal IS NOT NULL"
_IN_FLIGHT = "state IN ('submitting', 'accepted', 'uncertain')"
_TO_FETCH = "id IN (SELECT task FROM images WHERE state = 'announced')"
_IN_ORDER = "ORDER BY ordinal IS NULL, ordinal, id"


@dataclass(frozen=True, slots=True)
class Intent:
    """A submission about to be made: the task and, if it differs from the task's own, the exact body."""

    task: int
    body: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A committed intent: what may now be sent, and with which key."""

    task: TaskRecord
    key: str
    body: str
    opened_at: float
    """When the key was first used, in unix seconds."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """The committed intents, and what kept the rest from being committed, if it was the budget."""

    claims: tuple[Claim, ...]
    stopped_by: str = ""
    turns: tuple[float, ...] = ()
    """When each of them may be sent, in seconds after `decided_at`, if slots were requested."""
    decided_at: float = 0.0
    """The reference time of `turns`, by the clock given to `claim`."""
    free_in: float = 0.0
    """Seconds after which to try again, if there were fewer slots than intents."""


@dataclass(frozen=True, slots=True)
class SharedRate:
    """Reserved slots for submissions, and the new state of the rate limiter."""

    state: str
    at: tuple[float, ...]
    free_in: float


Take = Callable[[str, float, int], SharedRate]
"""Reserves up to a number of slots, given the limiter's state and the time of the workers' shared clock."""


@dataclass(eq=False)
class TaskQueue(Part):
    """The tasks of the job to work on: all of them, or those that `select` chose for this run.

    On a shared manifest, a worker works on the tasks that it owns, and takes ownership of free ones.
    """

    _transitions: TaskTransitions
    _tasks: TaskStore
    _budget: BudgetLedger
    _ownership: Ownership
    _selects: bool = field(default=False, init=False)

    # Planned tasks

    def select(self, selects: Callable[[Mapping[str, Json]], bool]) -> int:
        """Restrict the queue to tasks whose cell `selects` accepts; return their number."""

        def rows() -> Iterator[tuple[int, int, bool]]:
            wanted = "SELECT id, ordinal, state = 'planned', cell FROM tasks WHERE ordinal IS NOT NULL ORDER BY id"
            for number, ordinal, planned, cell in self._connection.each(wanted):
                if selects(json.loads(cell)):
                    yield number, ordinal, planned

        with self._group() as sql:
            self._connection.store_selection(self._database.run, rows)
            self._selects = True
            return int(sql.execute(f"SELECT count(*) FROM {self._selection}").fetchone()[0])

    def is_selected(self, task: TaskRecord) -> bool:
        """Return whether the run may buy or resend the task."""
        sql = f"SELECT 1 FROM {self._selection} WHERE chosen.task = ?"
        return not self._selects or self._connection.row(sql, (task.id,)) is not None

    def wanted(self) -> int:
        """Return the number of tasks that the job asks for."""
        return int(self._connection.rows("SELECT count(*) FROM tasks WHERE ordinal IS NOT NULL")[0][0])

    def has_dropped(self) -> bool:
        """Return whether there are tasks that the job does not ask for any more."""
        return bool(self._connection.rows("SELECT count(*) > count(ordinal) FROM tasks")[0][0])

    def due(self, limit: int, now: float, only: Collection[int] | None = None) -> list[TaskRecord]:
        """Return up to `limit` planned tasks of the job (of `only` these) whose pause is over, in the job's order.

        On a shared manifest, this worker takes ownership of them.
        """
        condition, values = self._among(only)
        due = f"{self._planned} AND not_before <= ?{condition}"
        if self._connection.shared:
            self._take(due, (now, *values), limit)
        mine = self._ownership.mine("AND")
        return read_tasks(self._connection, f"{due}{mine} ORDER BY {self._order} LIMIT ?", (now, *values, limit))

    def _take(self, due: str, values: tuple[object, ...], limit: int) -> None:
        """Take ownership of planned tasks, until this worker owns `limit` that are due."""
        with self._group() as sql:
            owned = sql.execute(f"SELECT count(*) FROM {due}{self._ownership.mine('AND')}", values).fetchone()[0]
            if owned < limit:
                # SKIP LOCKED passes over tasks that another worker is just taking.
                sql.execute(
                    f"UPDATE tasks SET worker = ? WHERE id IN (SELECT id FROM {due}{self._ownership.free('AND')}"
                    f" ORDER BY {self._order} LIMIT ? FOR NO KEY UPDATE OF tasks SKIP LOCKED)",
                    (self._connection.worker, *values, limit - owned),
                )

    def next_due(self, only: Collection[int] | None = None) -> float | None:
        """Return when the first planned task of the job (of `only` these) may be sent, in unix seconds."""
        condition, values = self._among(only)
        of_all = f"SELECT min(not_before) FROM {self._planned}{condition}{self._ownership.free_or_mine('AND')}"
        row = self._connection.rows(of_all, values)[0]
        return None if row[0] is None else float(row[0])

    def planned_cost(self, limit: int | None) -> tuple[int, int]:
        """Return images and estimated cost of the job's planned tasks, or of the first `limit`."""
        row = self._connection.rows(
            "SELECT coalesce(sum(images), 0), coalesce(sum(images * coalesce(prices.price, first.price)), 0) FROM"
            f" (SELECT images, price, model, resolution FROM {self._planned}"
            f" ORDER BY {self._order} LIMIT ?) AS first LEFT JOIN prices USING (model, resolution)",
            (UNLIMITED if limit is None else limit,),
        )[0]
        return int(row[0]), int(row[1])

    @property
    def of_job(self) -> str:
        """The condition on `tasks` that a task is in the job and selected."""
        # EXISTS rather than IN, which would scan from the start of the selection for each page of a long list.
        chosen = f" AND EXISTS (SELECT 1 FROM {self._selection} WHERE chosen.task = tasks.id)" if self._selects else ""
        return f"tasks.ordinal IS NOT NULL{chosen}"

    @property
    def _planned(self) -> str:
        if not self._selects:
            return f"tasks WHERE {_PLANNED}"
        chosen = self._connection.selection(self._database.run, waiting=True)
        # This join order matters: the index of the selection is in the job's order.
        return f"{chosen} CROSS JOIN tasks WHERE tasks.id = chosen.task AND {_PLANNED}"

    @property
    def _order(self) -> str:
        return "place" if self._selects else "ordinal"

    @property
    def _selection(self) -> str:
        return self._connection.selection(self._database.run, waiting=False)

    def _among(self, numbers: Collection[int] | None) -> tuple[str, tuple[object, ...]]:
        if numbers is None:
            return "", ()
        condition, value = self._connection.dialect.in_list("tasks.id", numbers)
        return f" AND {condition}", (value,)

    # Tasks in flight

    def unowned(self, state: TaskState) -> array[int]:
        """Return the numbers of in-flight tasks in a state that no worker owns, in the job's order; for `own`."""
        # Naming the states of the index `tasks_open` lets the database use it.
        return self._connection.numbers(
            f"SELECT id FROM tasks WHERE {_IN_FLIGHT} AND state = ?{self._ownership.free('AND')} {_IN_ORDER}", (state,)
        )

    def to_fetch(self) -> array[int]:
        """Return the tasks with images to fetch that no worker owns, in the order of their expiry."""
        free = self._ownership.free("WHERE")
        among = f" AND task IN (SELECT id FROM tasks{free})" if free else ""
        # The plus sign keeps SQLite from scanning all images in the order of their tasks.
        return self._connection.numbers(
            f"SELECT +task FROM images WHERE state = 'announced'{among} GROUP BY +task ORDER BY min(expires_at), +task"
        )

    def lost(self, since: float) -> array[int]:
        """Return lost tasks submitted since then that have a task id and no owner."""
        return self._connection.numbers(
            "SELECT id FROM tasks WHERE state = 'lost' AND submitted_at > ? AND task_ids IS NOT NULL"
            f"{self._ownership.free('AND')} {_IN_ORDER}",
            (since,),
        )

    def short_of_images(self, since: float) -> array[int]:
        """Return the job's flagged tasks submitted since then that were completed with too few images."""
        return self._connection.numbers(
            "SELECT id FROM tasks WHERE state = 'succeeded' AND warning != '' AND submitted_at > ?"
            " AND task_ids IS NOT NULL AND images > (SELECT attempts.images FROM attempts WHERE task = tasks.id"
            " AND outcome = 'succeeded' ORDER BY number DESC LIMIT 1)"
            f" AND {self.of_job}{self._ownership.free('AND')} ORDER BY id",
            (since,),
        )

    # Ownership by workers

    def own(self, numbers: Sequence[int]) -> list[TaskRecord]:
        """Take ownership of those of these tasks (at most a few hundred at a time) that are free; return their records.

        In the given order; a single run gets all of them.
        """
        if self._connection.shared and numbers:
            with self._group() as sql:
                condition, value = self._connection.dialect.in_list("id", numbers)
                rows = sql.execute(
                    f"UPDATE tasks SET worker = ? WHERE {condition}{self._ownership.free('AND')} RETURNING id",
                    (self._connection.worker, value),
                ).fetchall()
            taken = {row[0] for row in rows}
            numbers = [number for number in numbers if number in taken]
        return self._tasks.records(numbers)

    def release(self, but: Collection[int] = ()) -> set[int]:
        """Release this worker's unfinished tasks, `but` for these; return their numbers."""
        condition, value = self._connection.dialect.in_list("id", but)
        mine = f"{self._ownership.mine('AND')} AND NOT {condition}"
        with self._group() as sql:
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
        condition, value = self._connection.dialect.in_list("tasks.id", but)
        in_flight = (
            f"tasks WHERE {_IN_FLIGHT} AND (state = 'accepted' OR (state = 'uncertain' AND held = 0 AND {resend}))"
        )
        free = self._ownership.free("AND")
        return any(
            self._connection.row(f"SELECT 1 FROM {rows}{free} AND NOT {condition} LIMIT 1", (value,))
            for rows in (self._planned, in_flight, f"tasks WHERE {_TO_FETCH}")
        )

    def others_have(self, *, settling: bool = False) -> bool:
        """Return whether others own an unfinished task; with `settling`, one that may free a reservation."""
        theirs = self._ownership.theirs()
        kinds = ("state IN ('submitting', 'accepted')",) if settling else (_PLANNED, _IN_FLIGHT, _TO_FETCH)
        return any(self._connection.row(f"SELECT 1 FROM tasks WHERE {kind} AND {theirs} LIMIT 1") for kind in kinds)

    # Claims

    def claim(
        self,
        intents: Sequence[Intent],
        budget: Budget,
        now: float,
        *,
        take: Take | None = None,
        also: int = 0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> Claimed:
        """Commit the intents with their keys and reservations, as far as the budget and the slots allow.

        Skips tasks that are no longer planned. Nothing may be sent before this returns. `take` reserves as many slots,
        and before them `also` more for submissions that need no intent; theirs come first.
        """
        with self._group() as sql:
            turns, decided_at = None, 0.0
            self._budget.lock(sql)
            if take is not None:
                state, clock = sql.execute(f"SELECT state, {CLOCK} FROM pace").fetchone()
                decided_at = monotonic()
                turns = take(state, clock, also + len(intents))
                intents = intents[: max(0, len(turns.at) - also)]
                turns = replace(turns, at=tuple(at - clock for at in turns.at))
                sql.execute("UPDATE pace SET state = ?", (turns.state,))
            claims, refusals = self._claims(sql, intents, budget, now, stops=True)
        stopped_by = next(iter(refusals.values()), "")
        if turns is None:
            return Claimed(tuple(claims), stopped_by)
        return Claimed(tuple(claims), stopped_by, turns.at, decided_at, turns.free_in)

    def claim_each(self, intents: Sequence[Intent], budget: Budget, now: float) -> list[Claimed]:
        """Commit the intents like `claim`, but go on after an intent that the budget refuses."""
        if len({intent.task for intent in intents}) < len(intents):
            raise OneByOne
        with self._group() as sql:
            self._budget.lock(sql)
            claims, refusals = self._claims(sql, intents, budget, now)
        by_task = {claim.task.id: (claim,) for claim in claims}
        return [Claimed(by_task.get(intent.task, ()), refusals.get(intent.task, "")) for intent in intents]

    def open_claim(self, task: TaskRecord) -> Claim | None:
        """Return what was sent for an uncertain task, for a resend with its key; None if it is no longer uncertain."""
        row = self._connection.row(
            "SELECT key, attempts.body, opened_at FROM attempts JOIN tasks ON tasks.id = attempts.task"
            " WHERE task = ? AND number = ? AND attempt = number AND state = 'uncertain'",
            (task.id, task.attempt),
        )
        if row is None:
            return None
        return Claim(task, str(row[0]), task.body if row[1] is None else str(row[1]), float(row[2]))

    def _claims(
        self, sql: Sql, intents: Sequence[Intent], budget: Budget, now: float, *, stops: bool = False
    ) -> tuple[list[Claim], dict[int, str]]:
        """Commit what the budget allows; return the claims, and by task the limits that the other intents exceed.

        With `stops`, only the intents before the first of these are committed.
        """
        if not intents:
            return [], {}
        self._connection.check_in_place()
        allowance = self._budget.allowance(budget, now)
        claims: list[Claim] = []
        reservations: list[Reservation] = []
        new, reused, moves = [], [], []
        refusals: dict[int, str] = {}
        for task, body, known in self._planned_with_keys(sql, intents):
            reservation = allowance.admit(task)
            if isinstance(reservation, str):
                refusals[task.id] = reservation
                if stops:
                    break
                continue
            number = task.attempt + (known is None)
            # Derived from manifest, task and attempt: a manifest restored from a backup uses the same key again, and
            # the service recognises what it has already done.
            key, opened_at = known or (f"sb-{self._database.id}-{task.fingerprint[:40]}-{number}", now)
            if known is None:
                new.append((key, task.id, number, body, now, *reservation))
            else:
                reused.append((*reservation, key))
            moves.append(Move(task, f"attempt {number}", now, {"attempt": number, "account": self._database.account}))
            sent = replace(task, state=TaskState.SUBMITTING, updated_at=now, attempt=number)
            claims.append(Claim(sent, key, task.body if body is None else body, opened_at))
            reservations.append(reservation)
        if claims:
            renewed = "UPDATE attempts SET outcome = 'open', kind = ?, reserved_images = ?, reserved = ? WHERE key = ?"
            sql.executemany(renewed, reused)
            insert(sql, "attempts (key, task, number, body, opened_at, kind, reserved_images, reserved)", new)
            self._budget.reserve(sql, reservations)
            self._transitions.move_all(sql, TaskState.SUBMITTING, moves)
        return claims, refusals

    @staticmethod
    def _planned_with_keys(
        sql: Sql, intents: Sequence[Intent]
    ) -> Iterator[tuple[TaskRecord, str | None, tuple[str, float] | None]]:
        """Yield the planned tasks of intents with their bodies, and the key to reuse and when it was first used.

        A key is reused if provably nothing was executed, and the body is the same: it is the same logical request.
        """
        bodies = {intent.task: intent.body for intent in intents}
        rows = sql.execute(
            f"SELECT {TASK_COLUMNS}, attempts.key, attempts.body, attempts.opened_at FROM tasks LEFT JOIN attempts"
            " ON attempts.task = tasks.id AND attempts.number = tasks.attempt AND attempts.outcome = 'not executed'"
            f" WHERE tasks.id IN ({marks(bodies)}) AND tasks.state = 'planned'",
            list(bodies),
        )
        planned = {row[0]: row for row in rows}
        for number in filter(planned.__contains__, bodies):
            *columns, key, sent, opened_at = planned[number]
            reusable = key is not None and sent == bodies[number]
            yield task_record(columns), bodies[number], (key, opened_at) if reusable else None
