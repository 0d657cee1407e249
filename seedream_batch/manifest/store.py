"""The manifest as the one run that holds it sees it: whole transactions, guarded moves, reserved money."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from seedream_batch.errors import StaleTransition
from seedream_batch.manifest.connection import Connection, told
from seedream_batch.manifest.enter import Entered, enter
from seedream_batch.manifest.rescue import Rescued
from seedream_batch.manifest.rows import IMAGE_COLUMNS, TASK_COLUMNS, image_record, task_record
from seedream_batch.manifest.schema import check_version, migrate
from seedream_batch.model.job import Budget
from seedream_batch.model.outcome import ImageUrl
from seedream_batch.model.task import (
    EDGES,
    IMAGE_EDGES,
    ImageRecord,
    ImageState,
    TaskRecord,
    TaskSpec,
    TaskState,
    Totals,
)


@dataclass(frozen=True, slots=True)
class Intent:
    """A submission that is about to be made: the task and, where it differs from the task's own, the exact body."""

    task: int
    body: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A committed intent: what may now be sent, and under which key."""

    task: TaskRecord
    key: str
    body: str
    opened_at: float
    """When the key was first used, in unix seconds."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """The intents that were committed, and why the rest was not, if the budget stopped them."""

    claims: tuple[Claim, ...]
    stopped_by: str = ""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What is known of a verified file."""

    bytes: int
    sha256: str
    width: int
    height: int
    format: str


_SENT = (TaskState.SUBMITTING, TaskState.UNCERTAIN)
"""The states in which a task waits for the outcome of its submission."""


class Manifest:
    """The manifest open for writing. One process holds it at a time (see `lock`), one thread uses it at a time.

    Every public method is one transaction, durable when it returns; within `group()` they share one. A write that
    finds another state than it names changes nothing and raises `StaleTransition`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = Connection(path, check=check_version)
        self._run: int | None = None
        self.group = self._connection.transaction
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

    # facts and runs

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

    def enter(self, specs: Iterable[TaskSpec], now: float) -> Entered:
        """Makes the job's tasks those of the manifest, or changes nothing if the stream of tasks raises."""
        with self.group() as sql:
            return enter(sql, specs, now)

    def recover(self, now: float) -> int:
        """What a killed run left in the middle of a submission becomes uncertain; how many there were."""
        with self.group() as sql:
            left = self.tasks(TaskState.SUBMITTING)
            for task in left:
                why = "the run ended between sending and an answer"
                self._move(sql, task, TaskState.UNCERTAIN, why, now, reason=why, code="", held=0)
                self._attempt(sql, task, "uncertain")
        return len(left)

    def take_in(self, rescued: Iterable[Rescued], now: float, *, timeout: float) -> int:
        """Task ids that an earlier run could not store become those of their tasks; how many tasks that settles."""
        taken = 0
        with self.group() as sql:
            for one in rescued:
                row = sql.execute(
                    "SELECT tasks.id FROM attempts JOIN tasks ON tasks.id = attempts.task"
                    " WHERE attempts.key = ? AND attempts.number = tasks.attempt"
                    " AND tasks.state IN ('submitting', 'uncertain')",
                    (one.key,),
                ).fetchone()
                if row is not None:
                    task = self.task(row[0])
                    self.accepted(task, one.task_ids, deadline=one.at + timeout, why="rescued", now=now)
                    taken += 1
        return taken

    # reading what is to be done

    def tasks(self, state: TaskState) -> list[TaskRecord]:
        """All tasks in a state, in the order of the job."""
        rows = self._connection.rows(
            f"SELECT {TASK_COLUMNS} FROM tasks WHERE state = ? ORDER BY ordinal IS NULL, ordinal, id",
            (state,),
        )
        return [task_record(row) for row in rows]

    def task(self, number: int) -> TaskRecord:
        """One task."""
        return task_record(self._connection.rows(f"SELECT {TASK_COLUMNS} FROM tasks WHERE id = ?", (number,))[0])

    def due(self, limit: int, now: float, only: Collection[int] | None = None) -> list[TaskRecord]:
        """Up to `limit` planned tasks of the job (of `only` these) whose pause is over, in the order of the job."""
        rows = self._connection.rows(
            f"SELECT {TASK_COLUMNS} FROM tasks WHERE state = 'planned' AND ordinal IS NOT NULL AND not_before <= :now"
            " AND (:only IS NULL OR id IN (SELECT value FROM json_each(:only))) ORDER BY ordinal LIMIT :limit",
            {"now": now, "only": _ids(only), "limit": limit},
        )
        return [task_record(row) for row in rows]

    def next_due(self, only: Collection[int] | None = None) -> float | None:
        """When the first planned task of the job (of `only` these) may be sent, in unix seconds; None without any."""
        row = self._connection.rows(
            "SELECT min(not_before) FROM tasks WHERE state = 'planned' AND ordinal IS NOT NULL"
            " AND (:only IS NULL OR id IN (SELECT value FROM json_each(:only)))",
            {"only": _ids(only)},
        )[0]
        return None if row[0] is None else float(row[0])

    def planned_cost(self, limit: int | None) -> tuple[int, int]:
        """Images, and their estimated cost, of the planned tasks of the job; of the first `limit` of them, if given."""
        row = self._connection.rows(
            "SELECT coalesce(sum(images), 0), coalesce(sum(images * coalesce(prices.price, first.price)), 0) FROM"
            " (SELECT images, price, model, resolution FROM tasks WHERE state = 'planned' AND ordinal IS NOT NULL"
            " ORDER BY ordinal LIMIT ?) AS first LEFT JOIN prices USING (model, resolution)",
            (-1 if limit is None else limit,),
        )[0]
        return int(row[0]), int(row[1])

    def images(self, task: int) -> list[ImageRecord]:
        """The images of a task."""
        sql = f'SELECT {IMAGE_COLUMNS} FROM images WHERE task = ? ORDER BY "index"'
        return [image_record(row) for row in self._connection.rows(sql, (task,))]

    def announced(self) -> list[ImageRecord]:
        """The images that wait to be fetched, the soonest to expire first."""
        sql = f'SELECT {IMAGE_COLUMNS} FROM images WHERE state = ? ORDER BY expires_at, task, "index"'
        return [image_record(row) for row in self._connection.rows(sql, (ImageState.ANNOUNCED,))]

    def moving(self) -> list[ImageRecord]:
        """The stored images whose file has to move."""
        sql = f"SELECT {IMAGE_COLUMNS} FROM images WHERE target IS NOT NULL AND state = ?"
        return [image_record(row) for row in self._connection.rows(sql, (ImageState.STORED,))]

    def under_way(self) -> list[ImageRecord]:
        """The images whose file was being moved when a run was cut off."""
        sql = f"SELECT {IMAGE_COLUMNS} FROM images WHERE via IS NOT NULL"
        return [image_record(row) for row in self._connection.rows(sql)]

    def owner(self, path: str) -> tuple[ImageRecord, bool] | None:
        """The stored image that has this path, and whether the job still asks for it."""
        columns = ", ".join(f"images.{name.strip()}" for name in IMAGE_COLUMNS.split(","))
        row = self._connection.row(
            f"SELECT {columns}, tasks.ordinal FROM images JOIN tasks ON tasks.id = images.task"
            " WHERE images.path = ? AND images.state = 'stored'",
            (path,),
        )
        return (image_record(row[:-1]), row[-1] is not None) if row else None

    def totals(self) -> Totals:
        """What was spent, and what is held."""
        sql = "SELECT reserved_images, reserved, images, cost FROM totals"
        return Totals(*self._connection.rows(sql)[0])

    # submitting

    def claim(self, intents: Sequence[Intent], budget: Budget, now: float) -> Claimed:
        """Commits the intents, with their keys and what they may cost, as far as the budget goes.

        Tasks that are no longer planned are passed over. Nothing may be sent before this returns.
        """
        claims: list[Claim] = []
        with self.group() as sql:
            for intent in intents:
                task = self.task(intent.task)
                if task.state is not TaskState.PLANNED:
                    continue
                refusal = self._over_budget(task, budget)
                if refusal:
                    return Claimed(tuple(claims), refusal)
                claims.append(self._open_attempt(sql, task, intent.body, now))
        return Claimed(tuple(claims))

    def _over_budget(self, task: TaskRecord, budget: Budget) -> str:
        totals = self.totals()
        images = totals.images + totals.reserved_images + task.images
        cost = totals.cost + totals.reserved + task.images * self._price(task)
        if budget.max_images is not None and images > budget.max_images:
            return f"budget.max_images {budget.max_images}"
        if budget.max_cost is not None and cost > budget.max_cost:
            return f"budget.max_cost_usd {budget.max_cost / 1_000_000:g}"
        return ""

    def price_is_known(self, task: TaskRecord) -> bool:
        """Whether the service has said what an image like the task's costs."""
        sql = "SELECT 1 FROM prices WHERE model = ? AND resolution = ?"
        return self._connection.row(sql, (task.model, task.resolution)) is not None

    def _price(self, task: TaskRecord) -> int:
        """What an image of the task will probably cost: what the service charged the last time, else the estimate."""
        row = self._connection.row(
            "SELECT price FROM prices WHERE model = ? AND resolution = ?", (task.model, task.resolution)
        )
        return int(row[0]) if row else task.price

    def _open_attempt(self, sql: sqlite3.Connection, task: TaskRecord, body: str | None, now: float) -> Claim:
        reserved = task.images * self._price(task)
        number = task.attempt
        row = sql.execute(
            "SELECT key, body, opened_at FROM attempts WHERE task = ? AND number = ? AND outcome = 'not executed'",
            (task.id, number),
        ).fetchone()
        if row is not None and row[1] == body:
            # Provably nothing was executed: the same logical request, so the same key.
            key, opened_at = str(row[0]), float(row[2])
            sql.execute(
                "UPDATE attempts SET outcome = 'open', reserved_images = ?, reserved = ? WHERE key = ?",
                (task.images, reserved, key),
            )
        else:
            number, opened_at = number + 1, now
            # Made of the manifest, the task and the attempt: a manifest that comes back from a backup uses the
            # same key again, and the service then recognises what it has done already.
            key = f"sb-{self.id}-{task.fingerprint[:40]}-{number}"
            sql.execute(
                "INSERT INTO attempts (key, task, number, body, opened_at, reserved_images, reserved)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (key, task.id, number, body, now, task.images, reserved),
            )
        sql.execute(
            "UPDATE totals SET reserved_images = reserved_images + ?, reserved = reserved + ?", (task.images, reserved)
        )
        self._move(sql, task, TaskState.SUBMITTING, f"attempt {number}", now, attempt=number)
        return Claim(self.task(task.id), key, body if body is not None else task.body, opened_at)

    def open_claim(self, task: TaskRecord) -> Claim | None:
        """What was sent for an uncertain task, for a resend under the same key."""
        row = self._connection.row(
            "SELECT key, body, opened_at FROM attempts WHERE task = ? AND number = ?", (task.id, task.attempt)
        )
        if row is None:
            return None
        return Claim(task, str(row[0]), task.body if row[1] is None else str(row[1]), float(row[2]))

    def accepted(
        self, task: TaskRecord, task_ids: Sequence[str], *, deadline: float, why: str, now: float
    ) -> TaskRecord:
        """Task ids came back: they are durable before anything else happens to the task."""
        ids = json.dumps(list(task_ids))
        with self.group() as sql:
            self._move(
                sql, task, TaskState.ACCEPTED, f"{why}: {' '.join(task_ids)}", now,
                task_ids=ids, submitted_at=now, deadline=deadline, code="", reason="", held=0,
            )  # fmt: skip
            self._attempt(sql, task, "accepted", task_ids=ids)
        return self.task(task.id)

    def not_executed(self, task: TaskRecord, *, why: str, not_before: float, now: float) -> None:
        """Provably nothing was executed: planned again under the same key, the money free again."""
        with self.group() as sql:
            self._leaving(task, *_SENT)
            self._move(sql, task, TaskState.PLANNED, why, now, not_before=not_before, reason=why, code="", held=0)
            self._release(sql, task, "not executed")

    def refused(self, task: TaskRecord, *, why: str, code: str, now: float) -> None:
        """A definite no to the submission."""
        with self.group() as sql:
            self._leaving(task, *_SENT)
            self._move(sql, task, TaskState.FAILED, why, now, reason=why, code=code, ended_at=now, held=0)
            self._release(sql, task, "refused")

    def uncertain(self, task: TaskRecord, *, why: str, code: str, held: bool, now: float) -> None:
        """Perhaps executed and paid: the reservation stays."""
        with self.group() as sql:
            self._move(sql, task, TaskState.UNCERTAIN, why, now, reason=why, code=code, held=int(held))
            self._attempt(sql, task, "uncertain")

    def still_uncertain(self, task: TaskRecord, *, why: str, held: bool, now: float) -> None:
        """A resend of an uncertain task told nothing of the first send."""
        with self.group() as sql:
            cursor = sql.execute(
                "UPDATE tasks SET reason = ?, held = max(held, ?), updated_at = ?"
                " WHERE id = ? AND state = 'uncertain' AND attempt = ?",
                (why, int(held), now, task.id, task.attempt),
            )
            _one(cursor, f"task {task.id} in state {TaskState.UNCERTAIN}")

    # ends

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

        Without a `cost` the delivered images count at the price they were reserved at.
        """
        with self.group() as sql:
            self._leaving(task, TaskState.ACCEPTED)
            spent = self._reserved_price(sql, task) * len(images) if cost is None else cost
            self._move(
                sql, task, TaskState.SUCCEEDED, why, now,
                cost=spent, ended_at=now, code="", reason=why if len(images) != task.images else "",
            )  # fmt: skip
            self._release(sql, task, "succeeded", images=len(images), cost=spent)
            if cost and images:
                # Rounded up: a reservation must not be too small by a fraction of a millionth.
                price = -(-cost // len(images))
                sql.execute("INSERT OR REPLACE INTO prices VALUES (?, ?, ?)", (task.model, task.resolution, price))
                self._hold_enough(sql, task, price)
            sql.executemany(
                'INSERT INTO images (task, "index", state, url, expires_at, updated_at) VALUES (?, ?, ?, ?, ?, ?)',
                [
                    (task.id, index, ImageState.ANNOUNCED, image.url, image.expires_at or default_expiry, now)
                    for index, image in enumerate(images, 1)
                ],
            )
        return self.images(task.id)

    def failed(
        self, task: TaskRecord, *, why: str, code: str, retry_at: float | None, now: float, cost: int = 0
    ) -> None:
        """The service failed the task, refunding all but `cost`; with `retry_at` it is planned anew, with a new key."""
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

    def lost(self, task: TaskRecord, *, why: str, now: float) -> None:
        """The task id leads nowhere; the reservation stays, because it may have been paid."""
        with self.group() as sql:
            self._leaving(task, TaskState.ACCEPTED)
            self._move(sql, task, TaskState.LOST, why, now, reason=why, ended_at=now)
            self._attempt(sql, task, "lost")

    # images

    def placing(self, image: ImageRecord, path: str, file: StoredFile, now: float) -> None:
        """The verified file is about to get its final name: a kill in between is then recognised by the hash."""
        with self.group() as sql:
            if ImageState.STORED not in IMAGE_EDGES[image.state]:
                raise StaleTransition(f"an image does not go from {image.state} to {ImageState.STORED}")
            # It goes where the job wants it now, so nothing is left to move.
            cursor = sql.execute(
                "UPDATE images SET target = NULL, path = ?, bytes = ?, sha256 = ?, width = ?, height = ?, format = ?,"
                ' updated_at = ? WHERE task = ? AND "index" = ? AND state = ?',
                (path, file.bytes, file.sha256, file.width, file.height, file.format, now,
                 image.task, image.index, image.state),
            )  # fmt: skip
            _one(cursor, f"image {image.index} of task {image.task} in state {image.state}")

    def move_image(self, image: ImageRecord, to: ImageState, why: str, now: float, **columns: object) -> None:
        """One image from its state to another; `columns` are set with it."""
        with self.group() as sql:
            if to not in IMAGE_EDGES[image.state]:
                raise StaleTransition(f"an image does not go from {image.state} to {to}")
            sets = {"state": to, "reason": "" if to is ImageState.STORED else why, "updated_at": now, **columns}
            assignments = ", ".join(f"{name} = ?" for name in sets)
            cursor = sql.execute(
                f'UPDATE images SET {assignments} WHERE task = ? AND "index" = ? AND state = ?',
                (*sets.values(), image.task, image.index, image.state),
            )
            _one(cursor, f"image {image.index} of task {image.task} in state {image.state}")
            self._log(sql, image.task, image.state, to, why, now, image=image.index)

    def try_again(
        self, image: ImageRecord, *, why: str, url: str | None, expires_at: float | None, now: float
    ) -> ImageRecord:
        """A download went wrong and is to be tried again, under a fresh URL if one was had."""
        with self.group() as sql:
            cursor = sql.execute(
                "UPDATE images SET tries = tries + 1, reason = ?, url = coalesce(?, url),"
                ' expires_at = coalesce(?, expires_at), updated_at = ? WHERE task = ? AND "index" = ? AND state = ?',
                (why, url, expires_at, now, image.task, image.index, ImageState.ANNOUNCED),
            )
            _one(cursor, f"image {image.index} of task {image.task} in state {ImageState.ANNOUNCED}")
        return self.images(image.task)[image.index - 1]

    def relocate(self, image: ImageRecord, path: str, *, target: str | None, now: float) -> None:
        """A stored file now stands at `path`; `target` is where it has to go on to, if anywhere."""
        with self.group() as sql:
            cursor = sql.execute(
                'UPDATE images SET path = ?, target = ?, via = NULL, updated_at = ? WHERE task = ? AND "index" = ?'
                " AND path = ? AND state = ?",
                (path, target, now, image.task, image.index, image.path, ImageState.STORED),
            )
            _one(cursor, f"image {image.index} of task {image.task} stored at {image.path}")

    def heading(self, image: ImageRecord, path: str | None) -> None:
        """The file is about to be renamed to `path`; None: it was not."""
        with self.group() as sql:
            cursor = sql.execute(
                'UPDATE images SET via = ? WHERE task = ? AND "index" = ? AND path = ?',
                (path, image.task, image.index, image.path),
            )
            _one(cursor, f"image {image.index} of task {image.task} at {image.path}")

    # uploads

    def upload(self, sha256: str, service: str, good_until: float) -> str | None:
        """The URL of an uploaded reference image that is good until then, if there is one."""
        row = self._connection.row(
            "SELECT url FROM uploads WHERE sha256 = ? AND service = ? AND expires_at > ?", (sha256, service, good_until)
        )
        return str(row[0]) if row else None

    def uploaded(self, sha256: str, service: str, url: str, expires_at: float) -> None:
        """Remembers where a reference image was uploaded to."""
        with self.group() as sql:
            sql.execute("INSERT OR REPLACE INTO uploads VALUES (?, ?, ?, ?)", (sha256, service, url, expires_at))

    # the parts of a transaction

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
        _one(cursor, f"task {task.id} in state {old}, attempt {task.attempt},")
        self._log(sql, task.id, old, new, why, now)

    def _leaving(self, task: TaskRecord, *states: TaskState) -> None:
        """The edges alone would let the outcome of a submission move a task that was looked at, and the other way."""
        if task.state not in states:
            expected = " or ".join(states)
            raise StaleTransition(f"task {task.id} is {task.state}, not {expected}; nothing was changed")

    def _hold_enough(self, sql: sqlite3.Connection, task: TaskRecord, price: int) -> None:
        """Raises what is held for tasks like this one that are in flight to what they will really cost."""
        like = "SELECT id FROM tasks WHERE model = ? AND resolution = ?"
        raised = sql.execute(
            "UPDATE attempts SET reserved = reserved_images * ? WHERE reserved_images > 0"
            f" AND reserved < reserved_images * ? AND task IN ({like})",
            (price, price, task.model, task.resolution),
        )
        if raised.rowcount:
            sql.execute("UPDATE totals SET reserved = (SELECT sum(reserved) FROM attempts)")

    def _reserved_price(self, sql: sqlite3.Connection, task: TaskRecord) -> int:
        """What an image was taken to cost when the attempt was opened; the job may say something else by now."""
        images, held = sql.execute(
            "SELECT reserved_images, reserved FROM attempts WHERE task = ? AND number = ?", (task.id, task.attempt)
        ).fetchone() or (0, 0)
        return int(held // images) if images else task.price

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
        _one(cursor, f"attempt {task.attempt} of task {task.id}")

    def _release(
        self, sql: sqlite3.Connection, task: TaskRecord, outcome: str, *, images: int = 0, cost: int = 0
    ) -> None:
        """Ends the reservation of the task's attempt; what it really cost takes its place."""
        held_images, held = sql.execute(
            "SELECT reserved_images, reserved FROM attempts WHERE task = ? AND number = ?", (task.id, task.attempt)
        ).fetchone()
        sql.execute(
            "UPDATE attempts SET outcome = ?, reserved_images = 0, reserved = 0, images = ?, cost = ?"
            " WHERE task = ? AND number = ?",
            (outcome, images, cost, task.id, task.attempt),
        )
        sql.execute(
            "UPDATE totals SET reserved_images = reserved_images - ?, reserved = reserved - ?,"
            " images = images + ?, cost = cost + ?",
            (held_images, held, images, cost),
        )


def _ids(numbers: Collection[int] | None) -> str | None:
    return None if numbers is None else json.dumps(sorted(numbers))


def _one(cursor: sqlite3.Cursor, what: str) -> None:
    if cursor.rowcount != 1:
        raise StaleTransition(f"{what} was not found; nothing was changed")
