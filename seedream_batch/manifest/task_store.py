"""Transitions of tasks: claimed, submitted, answered, ended."""

from __future__ import annotations

import json
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from seedream_batch.manifest.answer_store import SUBMISSION
from seedream_batch.manifest.base_store import Move
from seedream_batch.manifest.budget_ledger import Reservation, Settlement
from seedream_batch.manifest.database import Event, OneByOne, all_rows, one_row
from seedream_batch.manifest.db.connection import CLOCK, Sql, insert, marks
from seedream_batch.manifest.image_store import ImageStore
from seedream_batch.manifest.rows import TASK_COLUMNS, task_record
from seedream_batch.model.job import Budget
from seedream_batch.model.outcome import ImageUrl, Kept
from seedream_batch.model.prices import Counted
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
    """An attempt to open: its claim, a body other than the task's, its reservation, and whether its key is reused."""

    claim: Claim
    body: str | None
    attempt: int
    reservation: Reservation
    reused: bool

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

_TASK_COLUMNS = ", ".join(f"tasks.{name.strip()}" for name in TASK_COLUMNS.split(","))


class TaskStore(ImageStore):
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
            self.budget.lock(sql)
            if take is not None:
                state, clock = sql.execute(f"SELECT state, {CLOCK} FROM pace").fetchone()
                decided_at = monotonic()
                turns = take(state, clock, also + len(intents))
                intents = intents[: max(0, len(turns.at) - also)]
                turns = replace(turns, at=tuple(at - clock for at in turns.at))
                sql.execute("UPDATE pace SET state = ?", (turns.state,))
            opened: list[_Opening] = []
            stopped_by = ""
            for _, outcome in self._affordable(intents, budget, now):
                if isinstance(outcome, str):
                    stopped_by = outcome
                    break
                opened.append(outcome)
            claims = tuple(self._open(sql, opened, now))
        if turns is None:
            return Claimed(claims, stopped_by)
        return Claimed(claims, stopped_by, turns.at, decided_at, turns.free_in)

    def claim_each(self, intents: Sequence[Intent], budget: Budget, now: float) -> list[Claimed]:
        """Commit the intents like `claim`, but go on after an intent that the budget refuses."""
        places = {intent.task: place for place, intent in enumerate(intents)}
        if len(places) < len(intents):
            raise OneByOne
        claimed = [Claimed(())] * len(intents)
        with self.group() as sql:
            self.budget.lock(sql)
            opened: list[_Opening] = []
            for task, outcome in self._affordable(intents, budget, now):
                if isinstance(outcome, str):
                    claimed[places[task]] = Claimed((), outcome)
                else:
                    opened.append(outcome)
            for claim in self._open(sql, opened, now):
                claimed[places[claim.task.id]] = Claimed((claim,))
        return claimed

    def _affordable(
        self, intents: Sequence[Intent], budget: Budget, now: float
    ) -> Iterator[tuple[int, _Opening | str]]:
        """Yield for each planned task the attempt to open for its intent, or the limit of the budget it exceeds."""
        if not intents:
            return
        self._connection.check_in_place()
        bodies = {intent.task: intent.body for intent in intents}
        rows = self._connection.rows(
            f"SELECT {_TASK_COLUMNS}, attempts.key, attempts.body, attempts.opened_at FROM tasks LEFT JOIN attempts"
            " ON attempts.task = tasks.id AND attempts.number = tasks.attempt AND attempts.outcome = 'not executed'"
            f" WHERE tasks.id IN ({marks(bodies)}) AND tasks.state = 'planned'",
            list(bodies),
        )
        planned = {row[0]: row for row in rows}
        allowance = self.budget.allowance(budget, now)
        for number, body in bodies.items():
            if number not in planned:
                continue
            *task_row, key, sent, opened_at = planned[number]
            task = task_record(task_row)
            reservation = allowance.admit(task)
            if isinstance(reservation, str):
                yield number, reservation
                continue
            # Provably nothing was executed: it is the same logical request, so reuse its key.
            reused = key is not None and sent == body
            attempt = task.attempt if reused else task.attempt + 1
            if not reused:
                # Derived from manifest, task and attempt: a manifest restored from a backup uses the same key again,
                # and the service recognises what it has already done.
                key, opened_at = f"sb-{self.id}-{task.fingerprint[:40]}-{attempt}", now
            claim = Claim(task, key, task.body if body is None else body, opened_at)
            yield number, _Opening(claim, body, attempt, reservation, reused=reused)

    def _open(self, sql: Sql, opened: Sequence[_Opening], now: float) -> list[Claim]:
        """Write the attempts and move their tasks; return the claims with the updated tasks."""
        if not opened:
            return []
        sql.executemany(
            "UPDATE attempts SET outcome = 'open', reserved_images = ?, reserved = ?, kind = ? WHERE key = ?",
            [
                (at.reservation.images, at.reservation.money, at.reservation.kind, at.claim.key)
                for at in opened
                if at.reused
            ],
        )
        insert(
            sql,
            "attempts (key, task, number, body, opened_at, reserved_images, reserved, kind)",
            [
                (
                    at.claim.key,
                    at.task.id,
                    at.attempt,
                    at.body,
                    now,
                    at.reservation.images,
                    at.reservation.money,
                    at.reservation.kind,
                )
                for at in opened
                if not at.reused
            ],
        )
        reservations = [opening.reservation for opening in opened]
        images, money = sum(held.images for held in reservations), sum(held.money for held in reservations)
        self.budget.add(sql, reserved_images=images, reserved=money)
        task = opened[0].task
        moved = sql.executemany(
            "UPDATE tasks SET state = 'submitting', updated_at = ?, attempt = ?, account = ?"
            " WHERE id = ? AND state = 'planned' AND attempt = ?",
            [
                (now, opening.attempt, self._database.account, opening.task.id, opening.task.attempt)
                for opening in opened
            ],
        )
        all_rows(moved, len(opened), f"task {task.id} in state {task.state}, attempt {task.attempt},")
        self._log_all(
            sql,
            [
                (now, opening.task.id, None, TaskState.PLANNED, TaskState.SUBMITTING, f"attempt {opening.attempt}")
                for opening in opened
            ],
        )
        return [
            replace(
                opening.claim,
                task=replace(opening.task, state=TaskState.SUBMITTING, updated_at=now, attempt=opening.attempt),
            )
            for opening in opened
        ]

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
        """Call `accept_all` for one task."""
        return self.accept_all([Acceptance(task, task_ids, deadline, why, now, kept)])[0]

    def accept_all(self, answers: Sequence[Acceptance]) -> list[TaskRecord]:
        """Record the returned task ids durably before anything else happens to the tasks.

        If another task has one of the ids, the outcome of this one is unknown: it is held for a person. Raises
        `OneByOne` for several answers then.
        """
        with self.group() as sql:
            for answer in answers:
                self._leaving(answer.task, *_SENT)
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
            self._move_all(sql, TaskState.ACCEPTED, moves)
            self._attempts(sql, "accepted", [(move.task, str(move.columns["task_ids"])) for move in moves])
            for answer in answers:
                self.answers.keep(sql, answer.task, answer.kept, SUBMISSION, answer.now)
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
        return self.task(others[0]) if others else None

    def _hold_for_same_id(self, sql: Sql, answer: Acceptance, other: TaskRecord) -> TaskRecord:
        """Hold a task that was answered with another one's id, and return its updated record."""
        task, now, kept = answer.task, answer.now, answer.kept
        name = " ".join(answer.task_ids)
        reason = f"the service answered with the task id {name}, which {other.paths[0]} has already"
        if kept is not None:
            kept = replace(kept, why=reason)
            also = replace(kept, why=f"{task.paths[0]} got the task id {name} of this task as well")
            self.answers.keep(sql, other, also, SUBMISSION, now)
        if task.state is TaskState.SUBMITTING:
            self.uncertain(task, why=reason, code=SAME_ID, held=True, now=now, kept=kept)
        else:
            self.still_uncertain(task, why=reason, held=True, now=now, kept=kept)
        return self.task(task.id)

    def not_executed(
        self, task: TaskRecord, *, why: str, not_before: float, now: float, kept: Kept | None = None
    ) -> None:
        """Record that provably nothing was executed: plan it again with its key, and free its reservation."""
        with self.group() as sql:
            self._leaving(task, *_SENT)
            self._move(sql, task, TaskState.PLANNED, why, now, not_before=not_before, reason=why, code="", held=0)
            self.budget.release(sql, task, "not executed")
            self.answers.keep(sql, task, kept, SUBMISSION, now)

    def refused(self, task: TaskRecord, *, why: str, code: str, now: float, kept: Kept | None = None) -> None:
        """Record a definite refusal of the submission."""
        with self.group() as sql:
            self._leaving(task, *_SENT)
            self._move(sql, task, TaskState.FAILED, why, now, reason=why, code=code, ended_at=now, held=0)
            self.budget.release(sql, task, "refused")
            self.answers.keep(sql, task, kept, SUBMISSION, now)

    def uncertain(
        self, task: TaskRecord, *, why: str, code: str, held: bool, now: float, kept: Kept | None = None
    ) -> None:
        """Record that the submission was possibly executed and charged: its reservation stays."""
        with self.group() as sql:
            self._move(sql, task, TaskState.UNCERTAIN, why, now, reason=why, code=code, held=int(held))
            self._attempt(sql, task, "uncertain")
            self.answers.keep(sql, task, kept, SUBMISSION, now)

    def still_uncertain(self, task: TaskRecord, *, why: str, held: bool, now: float, kept: Kept | None = None) -> None:
        """Record that a resend of an uncertain task did not show the outcome of the first one."""
        with self.group() as sql:
            cursor = sql.execute(
                "UPDATE tasks SET reason = ?, held = CASE WHEN held > ? THEN held ELSE ? END, updated_at = ?"
                " WHERE id = ? AND state = 'uncertain' AND attempt = ?",
                (why, int(held), int(held), now, task.id, task.attempt),
            )
            one_row(cursor, f"task {task.id} in state {TaskState.UNCERTAIN}")
            self.answers.keep(sql, task, kept, SUBMISSION, now)

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
        """Call `succeed_all` for one task."""
        return self.succeed_all([Delivery(task, images, cost, why, now, default_expiry)])[0].images

    def succeed_all(self, deliveries: Sequence[Delivery]) -> list[Delivered]:
        """Record deliveries: store the URLs, and replace the reservations by the real costs.

        Without a plausible `cost`, images count at the price they were reserved at. Raises `OneByOne` for several
        deliveries then.
        """
        tasks = [delivery.task for delivery in deliveries]
        with self.group() as sql:
            for task in tasks:
                self._leaving(task, TaskState.ACCEPTED)
            held = self.budget.held(sql, tasks)
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
            self._move_all(sql, TaskState.SUCCEEDED, moves)
            settlements = [
                Settlement(delivery.task, len(delivery.images), spent.cost, spent.note)
                for delivery, spent in zip(deliveries, costs, strict=True)
            ]
            self.budget.settle(sql, "succeeded", settlements, held)
            charges = [
                # Round up: a reservation must not be too small by a fraction of a millionth.
                (delivery.task, -(-spent.cost // len(delivery.images)) if spent.believed else 0, delivery.now)
                for delivery, spent in zip(deliveries, costs, strict=True)
                if len(delivery.images) == delivery.task.images
            ]
            if charges:
                self.budget.record_charges(sql, charges)
            delivered = []
            for delivery, images, spent in zip(deliveries, self._announce(sql, deliveries), costs, strict=True):
                # Images of an earlier attempt may already be stored.
                warning = delivery.warn(sum(image.state not in NOT_THERE for image in images))
                if warning != delivery.task.warning:
                    self.warn_of_task(delivery.task.id, warning)
                delivered.append(Delivered(images, warning, spent.cost, spent.note))
        return delivered

    def _cost_of(self, delivery: Delivery, held_images: int, held: int) -> Counted:
        """Return what delivered images count, at the price reserved for them rather than the job's present one."""
        price = held // held_images if held_images else delivery.task.price
        return self.budget.cost_of(delivery.task, len(delivery.images), delivery.cost, delivery.now, price=price)

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
            spent = self.budget.cost_of(task, len(images), cost, now, price=held)
            # A cost that a person corrected stays, unless the service names a higher one.
            more = max(spent.cost - paid, 0)
            sql.execute(
                "UPDATE attempts SET images = ?, cost = ?, cost_note = ? WHERE task = ? AND number = ?",
                (len(images), paid + more, spent.note, task.id, number),
            )
            self.budget.add(sql, images=added, cost=more)
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
                known = {image.index: image for image in self.images(task.id)}
                # Pruned images no longer have rows, but earlier attempts show that they existed.
                earlier = sql.execute(
                    "SELECT coalesce(max(images), 0) FROM attempts"
                    " WHERE task = ? AND outcome = 'succeeded' AND number < ?",
                    (task.id, task.attempt),
                ).fetchone()[0]
            why = f"made anew by attempt {task.attempt}"
            for index, image in enumerate(delivery.images, 1):
                expires_at = image.expires_at or delivery.default_expiry
                row = known.get(index)
                if row is None:
                    new.append((task.id, index, ImageState.ANNOUNCED, image.url, expires_at, delivery.now))
                    if index <= earlier:
                        events.append((delivery.now, task.id, index, ImageState.MISSING, ImageState.ANNOUNCED, why))
                elif row.state in NOT_THERE:
                    columns = {"url": image.url, "expires_at": expires_at, "tries": 0, "reason": ""}
                    self.move_image(row, ImageState.ANNOUNCED, why, delivery.now, columns)
        insert(sql, 'images (task, "index", state, url, expires_at, updated_at)', new)
        self._log_all(sql, events)
        return [
            self.images(delivery.task.id)
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
        with self.group() as sql:
            self._leaving(task, TaskState.ACCEPTED)
            self._move(
                sql, task, TaskState.FAILED, why, now,
                reason=why, code=code, ended_at=now, failures=task.failures + 1,
            )  # fmt: skip
            self.budget.release(sql, task, "failed", cost=cost)
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


def _announced(task: TaskRecord, index: int, url: str, expires_at: float) -> ImageRecord:
    """Return the record of an image whose row was just inserted."""
    return ImageRecord(
        task.id, index, ImageState.ANNOUNCED, url, expires_at,
        path=None, target=None, bytes=None, sha256=None, width=None, height=None, format=None, tries=0, reason="",
    )  # fmt: skip
