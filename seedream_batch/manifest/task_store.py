"""Transitions of tasks: claimed, submitted, answered, ended."""

from __future__ import annotations

import json
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from seedream_batch.errors import StaleTransition
from seedream_batch.manifest.answer_store import SUBMISSION, AnswerStore
from seedream_batch.manifest.base_store import one_row
from seedream_batch.manifest.budget_ledger import BudgetLedger
from seedream_batch.manifest.db.connection import CLOCK, Sql, marks
from seedream_batch.manifest.image_store import ImageStore
from seedream_batch.manifest.rows import TASK_COLUMNS, task_record
from seedream_batch.model.job import Budget
from seedream_batch.model.outcome import ImageUrl, Kept
from seedream_batch.model.prices import UNSURE, Exposure, counted, kind_of
from seedream_batch.model.task import NOT_THERE, ImageRecord, ImageState, TaskRecord, TaskState


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
class _Opening:
    """An attempt that is opened, perhaps again: its claim, a body other than the task's, and the reservation."""

    claim: Claim
    body: str | None
    attempt: int
    reserved: int
    kind: str
    again: bool

    @property
    def task(self) -> TaskRecord:
        return self.claim.task


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

SAME_ID = "same_task_id"
"""Code of a task that is held because the service returned another task's id for it."""

_SENT = (TaskState.SUBMITTING, TaskState.UNCERTAIN)
"""States in which a task waits for the outcome of its submission."""

_MAY_COST_MORE = ", should it cost more than expected; collect or resolve what is in flight first"

_TASK_COLUMNS = ", ".join(f"tasks.{name.strip()}" for name in TASK_COLUMNS.split(","))


class TaskStore(BudgetLedger, ImageStore, AnswerStore):
    """Intents, outcomes and ends of tasks."""

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
        with self.group() as sql:
            turns, decided_at = None, 0.0
            if self.shared:
                self._one_at_a_time(sql)
            if take is not None:
                state, clock = sql.execute(f"SELECT state, {CLOCK} FROM pace").fetchone()
                decided_at = monotonic()
                turns = take(state, clock, also + len(intents))
                intents = intents[: max(0, len(turns.at) - also)]
                turns = replace(turns, at=tuple(at - clock for at in turns.at))
                sql.execute("UPDATE pace SET state = ?", (turns.state,))
            opened, stopped_by = self._affordable(intents, budget, now)
            self._open(sql, opened, now)
            found = {task.id: task for task in self.records([one.task.id for one in opened])}
        claims = tuple(replace(one.claim, task=found[one.task.id]) for one in opened)
        if turns is None:
            return Claimed(claims, stopped_by)
        return Claimed(claims, stopped_by, turns.at, decided_at, turns.free_in)

    def _affordable(self, intents: Sequence[Intent], budget: Budget, now: float) -> tuple[list[_Opening], str]:
        """What is opened for these intents, as far as the budget goes; what it would pass, if it stops them."""
        if not intents:
            return [], ""
        bodies = {intent.task: intent.body for intent in intents}
        rows = self._connection.rows(
            f"SELECT {_TASK_COLUMNS}, attempts.key, attempts.body, attempts.opened_at FROM tasks LEFT JOIN attempts"
            " ON attempts.task = tasks.id AND attempts.number = tasks.attempt AND attempts.outcome = 'not executed'"
            f" WHERE tasks.id IN ({marks(bodies)}) AND tasks.state = 'planned'",
            list(bodies),
        )
        planned = {row[0]: (task_record(row[:-3]), *row[-3:]) for row in rows}
        highest = self._highest(now)
        totals = self.totals()
        exposure: Exposure | None = None
        opened: list[_Opening] = []
        for number, body in bodies.items():
            if number not in planned:
                continue
            task, key, sent, opened_at = planned[number]
            # At least the estimate, and the highest recent price, as prices may vary.
            price = max(task.price, highest.get((task.model, task.resolution), 0))
            held = task.images * price
            totals = replace(
                totals,
                reserved_images=totals.reserved_images + task.images,
                reserved=totals.reserved + held,
            )
            if refusal := self._over_budget(budget, totals):
                return opened, f"{refusal}{self._dear(task, price)}"
            kind = kind_of(task)
            if budget.max_cost is not None and self._at_worst(totals) > budget.max_cost:
                if exposure is None:
                    exposure = Exposure(self._holding(), self._seen(now))
                    for one in opened:
                        exposure.add(one.kind, one.task.images, one.reserved)
                if not exposure.allows(
                    kind, task.images, held, counts=totals.cost + totals.reserved, cap=budget.max_cost
                ):
                    return opened, f"{self._cost_cap(budget.max_cost)}{_MAY_COST_MORE}"
                exposure.add(kind, task.images, held)
            # Provably nothing was executed: the same logical request, so the same key.
            again = key is not None and sent == body
            attempt = task.attempt if again else task.attempt + 1
            if not again:
                # Made of the manifest, the task and the attempt: a manifest that comes back from a backup uses the
                # same key again, and the service then recognises what it has done already.
                key, opened_at = f"sb-{self.id}-{task.fingerprint[:40]}-{attempt}", now
            claim = Claim(task, key, task.body if body is None else body, opened_at)
            opened.append(_Opening(claim, body, attempt, held, kind, again=again))
        return opened, ""

    def _open(self, sql: Sql, opened: Sequence[_Opening], now: float) -> None:
        """Writes the attempts and moves their tasks."""
        if not opened:
            return
        sql.executemany(
            "UPDATE attempts SET outcome = 'open', reserved_images = ?, reserved = ?, kind = ? WHERE key = ?",
            [(one.task.images, one.reserved, one.kind, one.claim.key) for one in opened if one.again],
        )
        sql.executemany(
            "INSERT INTO attempts (key, task, number, body, opened_at, reserved_images, reserved, kind)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (one.claim.key, one.task.id, one.attempt, one.body, now, one.task.images, one.reserved, one.kind)
                for one in opened
                if not one.again
            ],
        )
        images, reserved = sum(one.task.images for one in opened), sum(one.reserved for one in opened)
        self._add(sql, reserved_images=images, reserved=reserved)
        moved = sql.executemany(
            "UPDATE tasks SET state = 'submitting', updated_at = ?, attempt = ?, account = ?"
            " WHERE id = ? AND state = 'planned' AND attempt = ?",
            [(now, one.attempt, self._account, one.task.id, one.task.attempt) for one in opened],
        )
        if moved.rowcount != len(opened):
            raise StaleTransition("a task that was planned is not so any more; nothing was changed")
        told = [(one.task.id, f"attempt {one.attempt}") for one in opened]
        self._log_all(sql, TaskState.PLANNED, TaskState.SUBMITTING, told, now)

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

    def accepted(
        self,
        task: TaskRecord,
        task_ids: Sequence[str],
        *,
        deadline: float,
        why: str,
        now: float,
        kept: Kept | None = None,
    ) -> TaskRecord:
        """Task ids came back: they are durable before anything else happens to the task.

        With an id that another task has, nobody knows what became of this one: it is held for a person.
        """
        ids = json.dumps(list(task_ids))
        with self.group() as sql:
            self._leaving(task, *_SENT)
            other = self._other_with(sql, task, task_ids)
            if other is not None:
                name = " ".join(task_ids)
                told = f"the service answered with the task id {name}, which {other.paths[0]} has already"
                if kept is not None:
                    kept = replace(kept, why=told)
                    also = replace(kept, why=f"{task.paths[0]} got the task id {name} of this task as well")
                    self._keep(sql, other, also, SUBMISSION, now)
                if task.state is TaskState.SUBMITTING:
                    self.uncertain(task, why=told, code=SAME_ID, held=True, now=now, kept=kept)
                else:
                    self.still_uncertain(task, why=told, held=True, now=now, kept=kept)
                return self.task(task.id)
            self._move(
                sql, task, TaskState.ACCEPTED, f"{why}: {' '.join(task_ids)}", now,
                task_ids=ids, submitted_at=now, deadline=deadline, code="", reason="", held=0,
            )  # fmt: skip
            self._attempt(sql, task, "accepted", task_ids=ids)
            self._keep(sql, task, kept, SUBMISSION, now)
        return self.task(task.id)

    def _other_with(self, sql: Sql, task: TaskRecord, task_ids: Sequence[str]) -> TaskRecord | None:
        """Another task with one of these ids, if there is one."""
        texts = [json.dumps(list(ids)) for ids in {tuple(task_ids), *((one,) for one in task_ids)}]
        row = sql.execute(
            f"SELECT tasks.id FROM attempts JOIN tasks ON tasks.id = attempts.task WHERE attempts.task_ids IN"
            f" ({marks(texts)}) AND attempts.task != ? LIMIT 1",
            (*texts, task.id),
        ).fetchone()
        return self.task(row[0]) if row else None

    def not_executed(
        self, task: TaskRecord, *, why: str, not_before: float, now: float, kept: Kept | None = None
    ) -> None:
        """Record that provably nothing was executed: plan it again with its key, and free its reservation."""
        with self.group() as sql:
            self._leaving(task, *_SENT)
            self._move(sql, task, TaskState.PLANNED, why, now, not_before=not_before, reason=why, code="", held=0)
            self._release(sql, task, "not executed")
            self._keep(sql, task, kept, SUBMISSION, now)

    def refused(self, task: TaskRecord, *, why: str, code: str, now: float, kept: Kept | None = None) -> None:
        """Record a definite refusal of the submission."""
        with self.group() as sql:
            self._leaving(task, *_SENT)
            self._move(sql, task, TaskState.FAILED, why, now, reason=why, code=code, ended_at=now, held=0)
            self._release(sql, task, "refused")
            self._keep(sql, task, kept, SUBMISSION, now)

    def uncertain(
        self, task: TaskRecord, *, why: str, code: str, held: bool, now: float, kept: Kept | None = None
    ) -> None:
        """Record that the submission was possibly executed and charged: its reservation stays."""
        with self.group() as sql:
            self._move(sql, task, TaskState.UNCERTAIN, why, now, reason=why, code=code, held=int(held))
            self._attempt(sql, task, "uncertain")
            self._keep(sql, task, kept, SUBMISSION, now)

    def still_uncertain(self, task: TaskRecord, *, why: str, held: bool, now: float, kept: Kept | None = None) -> None:
        """Record that a resend of an uncertain task did not show the outcome of the first one."""
        with self.group() as sql:
            cursor = sql.execute(
                "UPDATE tasks SET reason = ?, held = CASE WHEN held > ? THEN held ELSE ? END, updated_at = ?"
                " WHERE id = ? AND state = 'uncertain' AND attempt = ?",
                (why, int(held), int(held), now, task.id, task.attempt),
            )
            one_row(cursor, f"task {task.id} in state {TaskState.UNCERTAIN}")
            self._keep(sql, task, kept, SUBMISSION, now)

    def succeeded(
        self,
        task: TaskRecord,
        images: Sequence[ImageUrl],
        *,
        cost: int | None,
        why: str,
        now: float,
        default_expiry: float,
    ) -> list[ImageRecord]:
        """The service delivered: the URLs are stored, the reservation becomes the real cost.

        Without a `cost`, or with one that is not to be believed, they count at the price they were reserved at.
        """
        with self.group() as sql:
            self._leaving(task, TaskState.ACCEPTED)
            count = len(images)
            odd = cost is not None and cost > UNSURE * count * task.price
            known = self._highest(now).get((task.model, task.resolution), 0) if odd else 0
            spent = counted(cost, count, held=self._reserved_price(sql, task), estimate=task.price, known=known)
            self._move(
                sql, task, TaskState.SUCCEEDED, why, now,
                cost=spent.cost, ended_at=now, code="", reason=why if count != task.images else "",
            )  # fmt: skip
            self._release(sql, task, "succeeded", images=count, cost=spent.cost, note=spent.note)
            if count == task.images:
                # Rounded up: a reservation must not be too small by a fraction of a millionth.
                self._charged(sql, task, -(-spent.cost // count) if spent.believed else 0, now)
            self._announce(sql, task, images, default_expiry, now)
        return self.images(task.id)

    def delivered_more(
        self, task: TaskRecord, images: Sequence[ImageUrl], *, cost: int | None, now: float, default_expiry: float
    ) -> tuple[int, int]:
        """Announce images that a succeeded task has beyond those it was completed with.

        `images` are all of them, in the order of the images that are known. Return how many are new, and what they
        add to the cost in millionths of a USD.
        """
        with self.group() as sql:
            self._leaving(self.task(task.id), TaskState.SUCCEEDED)
            number, before, paid = sql.execute(
                "SELECT number, images, cost FROM attempts WHERE task = ? AND outcome = 'succeeded'"
                " ORDER BY number DESC LIMIT 1",
                (task.id,),
            ).fetchone()
            added = len(images) - before
            if added <= 0:
                return 0, 0
            held = -(-paid // before) if before else task.price
            known = self._highest(now).get((task.model, task.resolution), 0)
            spent = counted(cost, len(images), held=held, estimate=task.price, known=known)
            # A cost that a person corrected stays, unless the service names a higher one.
            more = max(spent.cost - paid, 0)
            sql.execute(
                "UPDATE attempts SET images = ?, cost = ?, cost_note = ? WHERE task = ? AND number = ?",
                (len(images), paid + more, spent.note, task.id, number),
            )
            self._add(sql, images=added, cost=more)
            sql.execute("UPDATE tasks SET cost = ? WHERE id = ? AND attempt = ?", (paid + more, task.id, number))
            rows = {image.index: image for image in self.images(task.id)}
            why = f"{added} more image(s) delivered since it completed"
            for index, image in enumerate(images, 1):
                row, expires_at = rows.get(index), image.expires_at or default_expiry
                if row is None:
                    self._announce_one(sql, task, index, image, expires_at, now)
                elif row.state in {ImageState.REJECTED, ImageState.EXPIRED}:
                    self.move_image(
                        row,
                        ImageState.ANNOUNCED,
                        why,
                        now,
                        columns={"url": image.url, "expires_at": expires_at, "tries": 0, "reason": ""},
                    )
        return added, more

    @staticmethod
    def _announce_one(sql: Sql, task: TaskRecord, index: int, image: ImageUrl, expires_at: float, now: float) -> None:
        sql.execute(
            'INSERT INTO images (task, "index", state, url, expires_at, updated_at) VALUES (?, ?, ?, ?, ?, ?)',
            (task.id, index, ImageState.ANNOUNCED, image.url, expires_at, now),
        )

    def warn_of_task(self, task: int, warning: str) -> None:
        """Record why the result of a task differs from the request; empty if it does not."""
        with self.group() as sql:
            sql.execute("UPDATE tasks SET warning = ? WHERE id = ? AND warning != ?", (warning, task, warning))

    def _announce(
        self, sql: Sql, task: TaskRecord, images: Sequence[ImageUrl], default_expiry: float, now: float
    ) -> None:
        """The links of an attempt. What is stored of an earlier one stays; what of it is not there is had anew."""
        known: dict[int, ImageRecord] = {}
        earlier = 0
        if task.attempt > 1:
            known = {image.index: image for image in self.images(task.id)}
            # Those that were pruned have no rows any more, but the log tells of them.
            earlier = sql.execute(
                "SELECT coalesce(max(images), 0) FROM attempts WHERE task = ? AND outcome = 'succeeded' AND number < ?",
                (task.id, task.attempt),
            ).fetchone()[0]
        why = f"made anew by attempt {task.attempt}"
        for index, image in enumerate(images, 1):
            expires_at = image.expires_at or default_expiry
            row = known.get(index)
            if row is None:
                self._announce_one(sql, task, index, image, expires_at, now)
                if index <= earlier:
                    self._log(sql, task.id, ImageState.MISSING, ImageState.ANNOUNCED, why, now, image=index)
            elif row.state in NOT_THERE:
                self.move_image(
                    row,
                    ImageState.ANNOUNCED,
                    why,
                    now,
                    columns={"url": image.url, "expires_at": expires_at, "tries": 0, "reason": ""},
                )

    def failed(
        self, task: TaskRecord, *, why: str, code: str, retry_at: float | None, now: float, cost: int = 0
    ) -> None:
        """Record a failure by the service, which refunds all but `cost`; `retry_at` plans it again with a new key."""
        with self.group() as sql:
            self._leaving(task, TaskState.ACCEPTED)
            self._move(
                sql, task, TaskState.FAILED, why, now,
                reason=why, code=code, ended_at=now, failures=task.failures + 1,
            )  # fmt: skip
            self._release(sql, task, "failed", cost=cost)
            if retry_at is not None:
                again = f"trying again after failure {task.failures + 1}"
                self._move(sql, self.task(task.id), TaskState.PLANNED, again, now, not_before=retry_at, task_ids=None)

    def lost_ids(self, since: float) -> array[int]:
        """Return lost tasks submitted since then that have a task id and no owner."""
        return self._connection.numbers(
            "SELECT id FROM tasks WHERE state = 'lost' AND submitted_at > ? AND task_ids IS NOT NULL"
            f"{self._free('AND')} ORDER BY ordinal IS NULL, ordinal, id",
            (since,),
        )

    def found_again(self, task: TaskRecord, *, deadline: float, why: str, now: float) -> TaskRecord:
        """Record that the service knows a lost task after all; its reservation is settled when it ends."""
        with self.group() as sql:
            self._leaving(task, TaskState.LOST)
            self._move(sql, task, TaskState.ACCEPTED, why, now, deadline=deadline, code="", reason="", ended_at=None)
            self._attempt(sql, task, "accepted")
        return self.task(task.id)

    def lost(self, task: TaskRecord, *, why: str, now: float) -> None:
        """Record that the service does not know the task id; the reservation stays, as it may have been charged."""
        with self.group() as sql:
            self._leaving(task, TaskState.ACCEPTED)
            self._move(sql, task, TaskState.LOST, why, now, reason=why, ended_at=now)
            self._attempt(sql, task, "lost")
