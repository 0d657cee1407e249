"""Transitions of tasks: claimed, submitted, answered, ended."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from seedream_batch.manifest.answer_store import SUBMISSION, AnswerStore
from seedream_batch.manifest.budget_ledger import BudgetLedger, Settlement
from seedream_batch.manifest.database import Event, OneByOne, Part, expect_rows
from seedream_batch.manifest.db.connection import Sql, marks
from seedream_batch.manifest.image_store import ImageStore
from seedream_batch.manifest.ownership import Ownership
from seedream_batch.manifest.rescue_log import Rescued
from seedream_batch.manifest.rows import read_tasks
from seedream_batch.manifest.transitions import Move, TaskTransitions, leaving
from seedream_batch.model.outcome import ImageUrl, Kept
from seedream_batch.model.prices import Counted
from seedream_batch.model.task import NOT_THERE, ImageRecord, ImageState, TaskRecord, TaskState


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The task ids returned for a task, and its deadline in unix seconds."""

    task: TaskRecord
    task_ids: Sequence[str]
    deadline: float
    why: str
    now: float
    kept: Kept | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the service delivered for a task, and the cost it named (millionths of a USD)."""

    task: TaskRecord
    images: Sequence[ImageUrl]
    cost: int | None
    why: str
    now: float
    default_expiry: float
    warn: Callable[[int], str] = lambda _: ""
    """Returns why this number of images differs from the request; empty if it does not."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """The images of a succeeded task, a warning if they differ from the request, the cost and a note on it."""

    images: list[ImageRecord]
    warning: str
    cost: int
    note: str


SAME_ID = "same_task_id"
"""Code of a task that is held because the service returned another task's id for it."""

_SENT = (TaskState.SUBMITTING, TaskState.UNCERTAIN)
"""States in which a task waits for the outcome of its submission."""

_OPEN = (
    "SELECT id FROM tasks WHERE state IN ('submitting', 'accepted', 'uncertain')"
    " UNION SELECT id FROM tasks WHERE state = 'lost' AND task_ids IS NOT NULL"
    " UNION SELECT task FROM images WHERE state = 'announced'"
)
"""Tasks that only the account they were sent with can finish, each part with an index of its own."""

CUT_OFF = "the run ended before the service answered"


@dataclass(eq=False)
class TaskStore(Part):
    """Tasks, the outcomes of their submissions, and their ends."""

    _transitions: TaskTransitions
    _budget: BudgetLedger
    _images: ImageStore
    _answers: AnswerStore
    _ownership: Ownership

    @property
    def times_planned(self) -> int:
        return self._transitions.times_planned

    def get(self, number: int) -> TaskRecord:
        return self.records([number])[0]

    def records(self, numbers: Sequence[int]) -> list[TaskRecord]:
        """Return these tasks (at most a few hundred at a time), in this order."""
        tasks = read_tasks(self._connection, f"tasks WHERE id IN ({marks(numbers)})", numbers)
        by_number = {task.id: task for task in tasks}
        return [by_number[number] for number in numbers]

    def in_state(self, state: TaskState) -> list[TaskRecord]:
        """Return all tasks in a state, in the job's order."""
        return read_tasks(self._connection, "tasks WHERE state = ? ORDER BY ordinal IS NULL, ordinal, id", (state,))

    def of_job(self, fingerprint: str) -> TaskRecord | None:
        found = read_tasks(self._connection, "tasks WHERE fingerprint = ? AND ordinal IS NOT NULL", (fingerprint,))
        return found[0] if found else None

    def knows_task_id(self, task_id: str) -> bool:
        elements = self._connection.dialect.elements("attempts.task_ids")
        sql = f"SELECT 1 FROM attempts, {elements} WHERE element.value = ? LIMIT 1"
        return self._connection.row(sql, (task_id,)) is not None

    # Accounts

    def is_of_other_account(self, task: TaskRecord) -> bool:
        """Return whether a task was last sent with an account other than this run's."""
        sql = "SELECT 1 FROM tasks WHERE id = ? AND account != ?"
        return self._connection.row(sql, (task.id, self._database.account)) is not None

    def open_by_account(self, *, verifies: bool) -> dict[int, int]:
        """Return the number of open tasks per account: in flight, uncertain, lost with a task id, or not all fetched.

        For a command that `verifies`, all tasks that the service may be asked about.
        """
        which = f"id IN ({_OPEN})" + (" OR task_ids IS NOT NULL" if verifies else "")
        rows = self._connection.rows(f"SELECT account, count(*) FROM tasks WHERE {which} GROUP BY account")
        return {int(account): int(count) for account, count in rows}

    def merge_accounts(self, accounts: Collection[int], account: int) -> None:
        """Assign the tasks of these accounts to one account."""
        condition, value = self._connection.dialect.in_list("account", accounts)
        with self._group() as sql:
            sql.execute(f"UPDATE tasks SET account = ? WHERE {condition} AND account != ?", (account, value, account))

    # After a killed run

    def recover(self, now: float) -> int:
        """Mark tasks that a killed run was submitting as uncertain; return their number."""
        with self._group() as sql:
            return self.cut_off(sql, self._ownership.free("AND"), now)

    def cut_off(self, sql: Sql, condition: str, now: float) -> int:
        """Mark those tasks of a condition that were being submitted as uncertain; return their number."""
        tasks = read_tasks(self._connection, f"tasks WHERE state = 'submitting'{condition} ORDER BY id")
        for task in tasks:
            self._transitions.move(sql, task, TaskState.UNCERTAIN, CUT_OFF, now, reason=CUT_OFF, code="", held=0)
            self._transitions.record_outcome(sql, task, "uncertain")
        return len(tasks)

    def import_ids(self, rescued: Iterable[Rescued], now: float, *, timeout: float) -> int:
        """Assign rescued task ids to their tasks; return how many of these answers the manifest now knows.

        Skips tasks that another worker owns: it may be about to learn the same.
        """
        known = 0
        with self._group() as sql:
            for answer in rescued:
                row = sql.execute(
                    "SELECT tasks.id, attempts.number = tasks.attempt AND tasks.state IN ('submitting', 'uncertain')"
                    " FROM attempts JOIN tasks ON tasks.id = attempts.task WHERE attempts.key = ?"
                    f"{self._ownership.free_or_mine('AND')}{self._connection.dialect.for_update('tasks')}",
                    (answer.key,),
                ).fetchone()
                if row is None:
                    continue
                known += 1
                if row[1]:
                    task, deadline = self.get(row[0]), answer.at + timeout
                    self.accepted(task, answer.task_ids, deadline=deadline, why="rescued", now=now)
                else:
                    sql.execute(
                        "UPDATE attempts SET task_ids = coalesce(task_ids, ?) WHERE key = ?",
                        (json.dumps(list(answer.task_ids)), answer.key),
                    )
        return known

    # Outcomes of submissions

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
        """Call `accept_all` for one task."""
        return self.accept_all([Acceptance(task, task_ids, deadline, why, now, kept)])[0]

    def accept_all(self, answers: Sequence[Acceptance]) -> list[TaskRecord]:
        """Record the returned task ids durably before anything else happens to the tasks.

        If another task has one of the ids, the outcome of this one is unknown: it is held for a person. Raises
        `OneByOne` for several answers then.
        """
        with self._group() as sql:
            for answer in answers:
                leaving(answer.task, *_SENT)
            other = self._other_with(sql, answers)
            if other is not None:
                return [self._hold_for_same_id(sql, answers[0], other)]
            moves = [
                Move(
                    answer.task, f"{answer.why}: {' '.join(answer.task_ids)}", answer.now,
                    {"task_ids": json.dumps(list(answer.task_ids)), "submitted_at": answer.now,
                     "deadline": answer.deadline, "code": "", "reason": "", "held": 0},
                )
                for answer in answers
            ]  # fmt: skip
            self._transitions.move_all(sql, TaskState.ACCEPTED, moves)
            self._transitions.record_outcomes(
                sql, "accepted", [(move.task, str(move.columns["task_ids"])) for move in moves]
            )
            for answer in answers:
                self._answers.keep(sql, answer.task, answer.kept, SUBMISSION, answer.now)
        return [
            replace(
                answer.task, state=TaskState.ACCEPTED, updated_at=answer.now, task_ids=tuple(answer.task_ids),
                submitted_at=answer.now, deadline=answer.deadline, code="", reason="", held=False,
            )
            for answer in answers
        ]  # fmt: skip

    def _other_with(self, sql: Sql, answers: Sequence[Acceptance]) -> TaskRecord | None:
        """Return another task with one of these ids, if there is one. Raises `OneByOne` for several answers."""
        ids = [name for answer in answers for name in set(answer.task_ids)]
        lists = {tuple(answer.task_ids) for answer in answers} | {(name,) for name in ids}
        texts = [json.dumps(list(names)) for names in lists]
        rows = sql.execute(
            f"SELECT DISTINCT attempts.task FROM attempts WHERE attempts.task_ids IN ({marks(texts)}) LIMIT ?",
            (*texts, len(answers) + 1),
        ).fetchall()
        if len(answers) > 1 and (rows or len(set(ids)) < len(ids)):
            raise OneByOne
        others = [number for (number,) in rows if number != answers[0].task.id]
        return self.get(others[0]) if others else None

    def _hold_for_same_id(self, sql: Sql, answer: Acceptance, other: TaskRecord) -> TaskRecord:
        """Hold a task that was answered with another one's id, and return its updated record."""
        task, now, kept = answer.task, answer.now, answer.kept
        name = " ".join(answer.task_ids)
        reason = f"the service returned the task id {name}, which belongs to {other.paths[0]}"
        if kept is not None:
            kept = replace(kept, why=reason)
            also = replace(kept, why=f"{task.paths[0]} got the same task id {name}")
            self._answers.keep(sql, other, also, SUBMISSION, now)
        if task.state is TaskState.SUBMITTING:
            self.uncertain(task, why=reason, code=SAME_ID, held=True, now=now, kept=kept)
        else:
            self.still_uncertain(task, why=reason, held=True, now=now, kept=kept)
        return self.get(task.id)

    def not_executed(
        self, task: TaskRecord, *, why: str, not_before: float, now: float, kept: Kept | None = None
    ) -> None:
        """Record that provably nothing was executed: plan it again with its key, and free its reservation."""
        with self._group() as sql:
            leaving(task, *_SENT)
            self._transitions.move(
                sql, task, TaskState.PLANNED, why, now, not_before=not_before, reason=why, code="", held=0
            )
            self._budget.release(sql, task, "not executed")
            self._answers.keep(sql, task, kept, SUBMISSION, now)

    def refused(self, task: TaskRecord, *, why: str, code: str, now: float, kept: Kept | None = None) -> None:
        """Record a definite refusal of the submission."""
        with self._group() as sql:
            leaving(task, *_SENT)
            self._transitions.move(sql, task, TaskState.FAILED, why, now, reason=why, code=code, ended_at=now, held=0)
            self._budget.release(sql, task, "refused")
            self._answers.keep(sql, task, kept, SUBMISSION, now)

    def uncertain(
        self, task: TaskRecord, *, why: str, code: str, held: bool, now: float, kept: Kept | None = None
    ) -> None:
        """Record that the submission was possibly executed and charged: its reservation stays."""
        with self._group() as sql:
            self._transitions.move(sql, task, TaskState.UNCERTAIN, why, now, reason=why, code=code, held=int(held))
            self._transitions.record_outcome(sql, task, "uncertain")
            self._answers.keep(sql, task, kept, SUBMISSION, now)

    def still_uncertain(self, task: TaskRecord, *, why: str, held: bool, now: float, kept: Kept | None = None) -> None:
        """Record that a resend of an uncertain task did not show the outcome of the first one."""
        with self._group() as sql:
            cursor = sql.execute(
                "UPDATE tasks SET reason = ?, held = CASE WHEN held > ? THEN held ELSE ? END, updated_at = ?"
                " WHERE id = ? AND state = 'uncertain' AND attempt = ?",
                (why, int(held), int(held), now, task.id, task.attempt),
            )
            expect_rows(cursor, 1, f"task {task.id} in state {TaskState.UNCERTAIN}")
            self._answers.keep(sql, task, kept, SUBMISSION, now)

    def succeed_all(self, deliveries: Sequence[Delivery]) -> list[Delivered]:
        """Record deliveries: store the URLs, and replace the reservations by the real costs.

        Without a plausible `cost`, images count at the price they were reserved at. Raises `OneByOne` for several
        deliveries then.
        """
        tasks = [delivery.task for delivery in deliveries]
        with self._group() as sql:
            for task in tasks:
                leaving(task, TaskState.ACCEPTED)
            held = self._budget.held(sql, tasks)
            costs = [self._cost_of(delivery, *held.get(delivery.task.id, (0, 0))) for delivery in deliveries]
            if len(costs) > 1 and not all(spent.believed and not spent.note for spent in costs):
                # The cost of one depends on what was charged for those before it.
                raise OneByOne
            moves = [
                Move(
                    delivery.task, delivery.why, delivery.now,
                    {"cost": spent.cost, "ended_at": delivery.now, "code": "",
                     "reason": delivery.why if len(delivery.images) != delivery.task.images else ""},
                )
                for delivery, spent in zip(deliveries, costs, strict=True)
            ]  # fmt: skip
            self._transitions.move_all(sql, TaskState.SUCCEEDED, moves)
            settlements = [
                Settlement(delivery.task, len(delivery.images), spent.cost, spent.note)
                for delivery, spent in zip(deliveries, costs, strict=True)
            ]
            self._budget.settle(sql, "succeeded", settlements, held)
            charges = [
                # Round up: a reservation must not be too small by a fraction of a millionth.
                (delivery.task, -(-spent.cost // len(delivery.images)) if spent.believed else 0, delivery.now)
                for delivery, spent in zip(deliveries, costs, strict=True)
                if len(delivery.images) == delivery.task.images
            ]
            if charges:
                self._budget.record_charges(sql, charges)
            delivered = []
            for delivery, images, spent in zip(deliveries, self._announce(sql, deliveries), costs, strict=True):
                # Images of an earlier attempt may already be stored.
                warning = delivery.warn(sum(image.state not in NOT_THERE for image in images))
                if warning != delivery.task.warning:
                    self.warn(delivery.task.id, warning)
                delivered.append(Delivered(images, warning, spent.cost, spent.note))
        return delivered

    def _cost_of(self, delivery: Delivery, held_images: int, held: int) -> Counted:
        """Return what delivered images count, at the price reserved for them rather than the job's present one."""
        price = held // held_images if held_images else delivery.task.price
        return self._budget.cost_of(delivery.task, len(delivery.images), delivery.cost, delivery.now, price=price)

    def delivered_more(
        self, task: TaskRecord, images: Sequence[ImageUrl], *, cost: int | None, now: float, default_expiry: float
    ) -> tuple[int, int]:
        """Announce images that a succeeded task has beyond those it was completed with.

        `images` are all of them, in the order of the images that are known. Return how many are new, and what they
        add to the cost in millionths of a USD.
        """
        with self._group() as sql:
            leaving(self.get(task.id), TaskState.SUCCEEDED)
            number, before, paid = sql.execute(
                "SELECT number, images, cost FROM attempts WHERE task = ? AND outcome = 'succeeded'"
                " ORDER BY number DESC LIMIT 1",
                (task.id,),
            ).fetchone()
            added = len(images) - before
            if added <= 0:
                return 0, 0
            held = -(-paid // before) if before else task.price
            spent = self._budget.cost_of(task, len(images), cost, now, price=held)
            # A cost that a person corrected stays, unless the service names a higher one.
            more = max(spent.cost - paid, 0)
            sql.execute(
                "UPDATE attempts SET images = ?, cost = ?, cost_note = ? WHERE task = ? AND number = ?",
                (len(images), paid + more, spent.note, task.id, number),
            )
            self._budget.add(sql, images=added, cost=more)
            sql.execute("UPDATE tasks SET cost = ? WHERE id = ? AND attempt = ?", (paid + more, task.id, number))
            rows = {image.index: image for image in self._images.of_task(task.id)}
            why = f"{added} more image(s) delivered since it completed"
            new = []
            for index, image in enumerate(images, 1):
                row = rows.get(index)
                if row is None:
                    expires_at = image.expires_at or default_expiry
                    new.append((task.id, index, ImageState.ANNOUNCED, image.url, expires_at, now))
                elif row.state in {ImageState.REJECTED, ImageState.EXPIRED}:
                    self._images.renew_link(row, image, default_expiry=default_expiry, now=now, why=why)
            self._images.insert(sql, new)
        return added, more

    def warn(self, task: int, warning: str) -> None:
        """Record why the result of a task differs from the request; empty if it does not."""
        with self._group() as sql:
            sql.execute("UPDATE tasks SET warning = ? WHERE id = ? AND warning != ?", (warning, task, warning))

    def _announce(self, sql: Sql, deliveries: Sequence[Delivery]) -> list[list[ImageRecord]]:
        """Store the links of attempts; return the images of their tasks.

        Stored images of an earlier attempt stay; missing ones are fetched again.
        """
        new: list[tuple[object, ...]] = []
        events: list[Event] = []
        for delivery in deliveries:
            task = delivery.task
            known: dict[int, ImageRecord] = {}
            earlier = 0
            if task.attempt > 1:
                known = {image.index: image for image in self._images.of_task(task.id)}
                # Pruned images no longer have rows, but earlier attempts show that they existed.
                earlier = sql.execute(
                    "SELECT coalesce(max(images), 0) FROM attempts"
                    " WHERE task = ? AND outcome = 'succeeded' AND number < ?",
                    (task.id, task.attempt),
                ).fetchone()[0]
            why = f"regenerated by attempt {task.attempt}"
            for index, image in enumerate(delivery.images, 1):
                expires_at = image.expires_at or delivery.default_expiry
                row = known.get(index)
                if row is None:
                    new.append((task.id, index, ImageState.ANNOUNCED, image.url, expires_at, delivery.now))
                    if index <= earlier:
                        events.append((delivery.now, task.id, index, ImageState.MISSING, ImageState.ANNOUNCED, why))
                elif row.state in NOT_THERE:
                    expiry = delivery.default_expiry
                    self._images.renew_link(row, image, default_expiry=expiry, now=delivery.now, why=why)
        self._images.insert(sql, new)
        self._database.log(sql, events)
        return [
            self._images.of_task(delivery.task.id)
            if delivery.task.attempt > 1
            else [
                _announced(delivery.task, index, image.url, image.expires_at or delivery.default_expiry)
                for index, image in enumerate(delivery.images, 1)
            ]
            for delivery in deliveries
        ]

    def failed(
        self, task: TaskRecord, *, why: str, code: str, retry_at: float | None, now: float, cost: int = 0
    ) -> None:
        """Record a failure by the service, which refunds all but `cost`; `retry_at` plans it again with a new key."""
        with self._group() as sql:
            leaving(task, TaskState.ACCEPTED)
            self._transitions.move(
                sql, task, TaskState.FAILED, why, now,
                reason=why, code=code, ended_at=now, failures=task.failures + 1,
            )  # fmt: skip
            self._budget.release(sql, task, "failed", cost=cost)
            if retry_at is not None:
                retry = f"retrying after failure {task.failures + 1}"
                failed = replace(task, state=TaskState.FAILED)
                self._transitions.move(sql, failed, TaskState.PLANNED, retry, now, not_before=retry_at, task_ids=None)

    def reopen(self, task: TaskRecord, *, deadline: float, why: str, now: float) -> TaskRecord:
        """Record that the service knows a lost task after all; its reservation is settled when it ends."""
        with self._group() as sql:
            leaving(task, TaskState.LOST)
            self._transitions.move(
                sql, task, TaskState.ACCEPTED, why, now, deadline=deadline, code="", reason="", ended_at=None
            )
            self._transitions.record_outcome(sql, task, "accepted")
        return self.get(task.id)

    def lost(self, task: TaskRecord, *, why: str, now: float) -> None:
        """Record that the service does not know the task id; the reservation stays, as it may have been charged."""
        with self._group() as sql:
            leaving(task, TaskState.ACCEPTED)
            self._transitions.move(sql, task, TaskState.LOST, why, now, reason=why, ended_at=now)
            self._transitions.record_outcome(sql, task, "lost")


def _announced(task: TaskRecord, index: int, url: str, expires_at: float) -> ImageRecord:
    """Return the record of an image whose row was just inserted."""
    return ImageRecord(
        task.id, index, ImageState.ANNOUNCED, url, expires_at,
        path=None, target=None, bytes=None, sha256=None, width=None, height=None, format=None, tries=0, reason="",
    )  # fmt: skip
