"""Money: reservations for tasks in flight, and the costs that replace them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from seedream_batch.manifest.database import Part
from seedream_batch.manifest.db.connection import Connection, Sql, marks
from seedream_batch.manifest.rows import TASK_COLUMNS, task_record
from seedream_batch.model.job import MICRO, Budget
from seedream_batch.model.prices import PROVEN, RECENT, UNSURE, Counted, Exposure, counted, kind_of, worst_case
from seedream_batch.model.task import TaskRecord, Totals

_DAY = 86_400

_MAY_COST_MORE = ", if it costs more than expected; "


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a task's attempt really delivered and cost (millionths of a USD), and a note if that is odd."""

    task: TaskRecord
    images: int = 0
    cost: int = 0
    note: str = ""


Charge = tuple[TaskRecord, int, float]
"""A task whose image was charged, the price (0: unknown), and when (unix seconds)."""


class Reservation(NamedTuple):
    """What is reserved for a request: its kind, its images, and millionths of a USD."""

    kind: str
    images: int
    money: int


@dataclass(slots=True)
class Allowance:
    """What a budget still allows within one transaction; each task that it admits counts for those after it."""

    _budget: Budget
    _totals: Totals
    _prices: Mapping[tuple[str, str], int]
    """The highest known ones by model and resolution."""
    _read_exposure: Callable[[], Exposure]
    """Reads what is pending; called only if it matters."""
    _exposure: Exposure | None = None
    _admitted: list[Reservation] = field(default_factory=list)

    def admit(self, task: TaskRecord) -> Reservation | str:
        """Return what to reserve for a task, or the limit that it would exceed."""
        # At least the estimate, and the highest recent price, as prices may vary.
        price = max(task.price, self._prices.get((task.model, task.resolution), 0))
        wanted = Reservation(kind_of(task), task.images, task.images * price)
        after = replace(
            self._totals,
            reserved_images=self._totals.reserved_images + wanted.images,
            reserved=self._totals.reserved + wanted.money,
        )
        if exceeded := self._exceeded(after):
            return f"{exceeded}{_advice(task, price)}"
        if self._may_exceed_cost(after, wanted):
            settling = self._exposure is not None and self._exposure.settling
            first = "the tasks in flight must finish first" if settling else "resolve the uncertain tasks first"
            return f"{_cost_cap(self._budget)}{_MAY_COST_MORE}{first}"
        self._totals = after
        self._admitted.append(wanted)
        if self._exposure is not None:
            self._exposure.add(*wanted)
        return wanted

    def _exceeded(self, after: Totals) -> str:
        """Return which limit these totals exceed; empty if none."""
        budget = self._budget
        if budget.max_images is not None and after.images + after.reserved_images > budget.max_images:
            return f"budget.max_images ({budget.max_images:,})"
        if budget.max_cost is not None and after.cost + after.reserved > budget.max_cost:
            return _cost_cap(budget)
        return ""

    def _may_exceed_cost(self, after: Totals, wanted: Reservation) -> bool:
        """Return whether the cost limit is exceeded if what is pending costs more than expected."""
        cap = self._budget.max_cost
        if cap is None or after.cost + worst_case(after.reserved, after.reserved_images, 0) <= cap:
            return False
        if self._exposure is None:
            self._exposure = self._read_exposure()
            for admitted in self._admitted:
                self._exposure.add(*admitted)
        counts = after.cost + after.reserved
        return not self._exposure.allows(*wanted, counts=counts, cap=cap)


class BudgetLedger(Part):
    """Reservations and costs; each change shares the transaction of the transition it belongs to."""

    def totals(self) -> Totals:
        """Return what was spent and what is reserved."""
        return read_totals(self._connection)

    def lock(self, sql: Sql) -> None:
        """On a shared manifest, be the only worker that takes slots or budget until the transaction ends."""
        if self._connection.shared:
            sql.execute("SELECT 1 FROM pace FOR UPDATE").fetchone()

    def add(self, sql: Sql, *, reserved_images: int = 0, reserved: int = 0, images: int = 0, cost: int = 0) -> None:
        """Change the totals; on a shared manifest those of this worker, so that no worker waits for another."""
        worker = self._connection.worker
        table, row = ("totals", '"only"') if worker is None else ("workers", "run")
        sql.execute(
            f"UPDATE {table} SET reserved_images = reserved_images + ?, reserved = reserved + ?, images = images + ?,"
            f" cost = cost + ? WHERE {row} = ?",
            (reserved_images, reserved, images, cost, 1 if worker is None else worker),
        )

    def reserve(self, sql: Sql, reservations: Sequence[Reservation]) -> None:
        images, money = sum(held.images for held in reservations), sum(held.money for held in reservations)
        self.add(sql, reserved_images=images, reserved=money)

    def allowance(self, budget: Budget, now: float) -> Allowance:
        limited = budget.max_images is not None or budget.max_cost is not None
        return Allowance(
            budget,
            self.totals() if limited else Totals(0, 0, 0, 0),
            self._highest_prices(now),
            lambda: Exposure(self._pending(), self._seen(now)),
        )

    def cost_of(self, task: TaskRecord, images: int, said: int | None, now: float, *, price: int) -> Counted:
        """Return what delivered images count, reserved at `price` each, if the service `said` a cost."""
        # Recent prices matter only for a cost far above the estimate.
        odd = said is not None and said > UNSURE * images * task.price
        known = self._highest_prices(now).get((task.model, task.resolution), 0) if odd else 0
        return counted(said, images, held=price, estimate=task.price, known=known)

    def _highest_prices(self, now: float) -> dict[tuple[str, str], int]:
        """Return the highest recent, or else the last, price of an image by model and resolution."""
        rows = self._connection.rows(
            "SELECT model, resolution, max(price) FROM"
            " (SELECT model, resolution, highest AS price FROM charges WHERE day >= ?"
            " UNION ALL SELECT model, resolution, price FROM prices) AS known GROUP BY model, resolution",
            (_first_day(now),),
        )
        return {(row[0], row[1]): int(row[2]) for row in rows}

    def _seen(self, now: float) -> dict[str, int]:
        """Return the number of recent charges for each kind of request."""
        rows = self._connection.rows(
            "SELECT kind, sum(seen) FROM charges WHERE day >= ? GROUP BY kind", (_first_day(now),)
        )
        return {row[0]: int(row[1]) for row in rows}

    def _pending(self) -> list[tuple[str, int, int, int]]:
        """Return pending reservations by kind: images, money, and the number of requests in flight."""
        rows = self._connection.rows(
            "SELECT kind, sum(reserved_images), sum(reserved), sum(CASE WHEN outcome = 'uncertain' THEN 0 ELSE 1 END)"
            " FROM attempts WHERE reserved_images > 0 AND outcome IN ('open', 'accepted', 'uncertain') GROUP BY kind"
        )
        return [(row[0], int(row[1]), int(row[2]), int(row[3])) for row in rows]

    def record_charges(self, sql: Sql, charges: Sequence[Charge]) -> None:
        """Record prices charged for images; a high one raises the reservations for similar tasks.

        Reservations never fall here: if prices vary, the highest of the last days counts.
        """
        last: dict[tuple[str, str], int] = {}
        prices: defaultdict[tuple[str, int, str, str], list[int]] = defaultdict(list)
        for task, price, now in charges:
            prices[kind_of(task), int(now // _DAY), task.model, task.resolution].append(price)
            if price:
                last[task.model, task.resolution] = price
        known = {(row[0], row[1]): row[2] for row in sql.execute("SELECT model, resolution, price FROM prices")}
        for like, price in last.items():
            if known.get(like) != price:
                self._set_price(sql, like, price)
        kinds = {kind for kind, *_ in prices}
        rows = sql.execute(
            f"SELECT kind, day, seen, highest FROM charges WHERE kind IN ({marks(kinds)}) AND day >= ?",
            (*kinds, min(day for _, day, *_ in prices)),
        ).fetchall()
        counts = {(kind, day): (seen, highest) for kind, day, seen, highest in rows}
        for (kind, day, model, resolution), charged in prices.items():
            before = counts.get((kind, day))
            self._count(sql, (kind, day, model, resolution), charged, before)

    def _count(
        self, sql: Sql, of: tuple[str, int, str, str], prices: Sequence[int], before: tuple[int, int] | None
    ) -> None:
        """Count charges of a kind of request on a day; `before` is the stored count and highest price."""
        seen, highest = before or (0, -1)
        for price in prices:
            # Otherwise nothing is new: avoid a write that other workers would wait for.
            if seen < PROVEN or highest < price:
                seen, highest = seen + 1, max(highest, price)
        new = seen - (before[0] if before else 0)
        if not new:
            return
        if before is None:
            sql.execute("DELETE FROM charges WHERE day < ?", (of[1] - RECENT,))
        sql.execute(
            "INSERT INTO charges (kind, day, model, resolution, highest, seen) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (kind, day) DO UPDATE SET seen = charges.seen + excluded.seen, highest ="
            " CASE WHEN excluded.highest > charges.highest THEN excluded.highest ELSE charges.highest END",
            (*of, highest, new),
        )
        if before is None or highest > before[1]:
            # Wait for claims in progress, which still reserve at the old price.
            self.lock(sql)
            self._change_reservations(sql, of[2:], highest)

    @staticmethod
    def _set_price(sql: Sql, like: tuple[str, str], price: int) -> None:
        sql.execute(
            "INSERT INTO prices (model, resolution, price) VALUES (?, ?, ?)"
            " ON CONFLICT (model, resolution) DO UPDATE SET price = excluded.price",
            (*like, price),
        )

    def _change_reservations(self, sql: Sql, like: tuple[str, str], price: int, *, lower: bool = False) -> None:
        """Reserve at least this price for each in-flight image of a model and resolution; with `lower`, at most."""
        of_kind = "SELECT 1 FROM tasks WHERE id = attempts.task AND model = ? AND resolution = ?"
        locked = self._connection.dialect.for_update("attempts")
        wrong = sql.execute(
            "SELECT key, reserved_images, reserved FROM attempts WHERE reserved_images > 0"
            f" AND reserved {'>' if lower else '<'} reserved_images * ? AND EXISTS ({of_kind}) ORDER BY key{locked}",
            (price, *like),
        ).fetchall()
        sql.executemany(
            "UPDATE attempts SET reserved = ? WHERE key = ?", [(images * price, key) for key, images, _ in wrong]
        )
        self.add(sql, reserved=sum(images * price - held for _, images, held in wrong))

    def charges(self, *, noted: bool) -> list[tuple[TaskRecord, int, int]]:
        """Return charged attempts, or those with a `noted` odd cost: task, attempt number and cost of each."""
        condition = "cost_note != ''" if noted else "(attempts.cost > 0 OR attempts.images > 0)"
        in_order = "ORDER BY tasks.ordinal IS NULL, tasks.ordinal, tasks.id, attempts.number"
        rows = self._connection.rows(
            f"SELECT {TASK_COLUMNS}, attempts.number, attempts.cost FROM attempts JOIN tasks"
            f" ON tasks.id = attempts.task WHERE {condition} {in_order}"
        )
        return [(task_record(row[:-2]), row[-2], row[-1]) for row in rows]

    def correct_cost(self, charges: Sequence[tuple[TaskRecord, int, int]], cost: int, now: float) -> None:
        """Set what each of these attempts really cost; adjusts totals, prices and reservations."""
        with self._group() as sql:
            for task, number, before in charges:
                sql.execute(
                    "UPDATE attempts SET cost = ?, cost_note = '' WHERE task = ? AND number = ?",
                    (cost, task.id, number),
                )
                sql.execute("UPDATE tasks SET cost = ? WHERE id = ? AND attempt = ?", (cost, task.id, number))
                self.add(sql, cost=cost - before)
                why = f"cost of attempt {number} corrected from {before / MICRO:g} to {cost / MICRO:g} USD"
                self._database.log(sql, [(now, task.id, None, task.state, task.state, why)])
            for like in sorted({(task.model, task.resolution) for task, _, _ in charges}):
                self._recompute_prices(sql, like, now)

    def _recompute_prices(self, sql: Sql, like: tuple[str, str], now: float) -> None:
        """Recompute the prices of a model and resolution from its attempts, and lower its reservations to them."""
        self.lock(sql)
        kinds = sql.execute(
            "SELECT kind, max((attempts.cost + attempts.images - 1) / attempts.images), count(*) FROM attempts"
            " JOIN tasks ON tasks.id = task WHERE model = ? AND resolution = ? AND attempts.images > 0 GROUP BY kind",
            like,
        ).fetchall()
        sql.execute("DELETE FROM charges WHERE model = ? AND resolution = ?", like)
        sql.execute("DELETE FROM prices WHERE model = ? AND resolution = ?", like)
        sql.executemany(
            "INSERT INTO charges (kind, day, model, resolution, highest, seen) VALUES (?, ?, ?, ?, ?, ?)",
            [(kind, int(now // _DAY), *like, highest, min(count, PROVEN)) for kind, highest, count in kinds],
        )
        price = max((row[1] for row in kinds), default=0)
        if price:
            self._set_price(sql, like, price)
        [estimate] = sql.execute("SELECT max(price) FROM tasks WHERE model = ? AND resolution = ?", like).fetchone()
        self._change_reservations(sql, like, max(price, estimate), lower=True)

    def held(self, sql: Sql, tasks: Sequence[TaskRecord]) -> dict[int, tuple[int, int]]:
        """Return the images and money reserved for the latest attempts of these tasks, by task."""
        rows = sql.execute(
            # Lock the rows: another worker may be raising the reservations.
            "SELECT tasks.id, reserved_images, reserved FROM tasks JOIN attempts ON attempts.task = tasks.id"
            f" AND attempts.number = tasks.attempt WHERE tasks.id IN ({marks(tasks)}) ORDER BY attempts.key"
            f"{self._connection.dialect.for_update('attempts')}",
            [task.id for task in tasks],
        ).fetchall()
        return {row[0]: (int(row[1]), int(row[2])) for row in rows}

    def release(self, sql: Sql, task: TaskRecord, outcome: str, *, cost: int = 0) -> None:
        """Replace the reservation of the task's attempt by its real cost."""
        self.settle(sql, outcome, [Settlement(task, cost=cost)], self.held(sql, [task]))

    def settle(
        self, sql: Sql, outcome: str, settlements: Sequence[Settlement], held: dict[int, tuple[int, int]]
    ) -> None:
        """Replace the reservations of the tasks' attempts, which are `held`, by their real costs."""
        sql.executemany(
            "UPDATE attempts SET outcome = ?, reserved_images = 0, reserved = 0, images = ?, cost = ?,"
            " cost_note = ? WHERE task = ? AND number = ?",
            [(outcome, real.images, real.cost, real.note, real.task.id, real.task.attempt) for real in settlements],
        )
        self.add(
            sql,
            reserved_images=-sum(held[real.task.id][0] for real in settlements),
            reserved=-sum(held[real.task.id][1] for real in settlements),
            images=sum(real.images for real in settlements),
            cost=sum(real.cost for real in settlements),
        )


def read_totals(connection: Connection) -> Totals:
    """Return what was spent and what is reserved."""
    return Totals(*connection.rows(f"SELECT reserved_images, reserved, images, cost FROM {connection.totals}")[0])


def _cost_cap(budget: Budget) -> str:
    return f"budget.max_cost_usd ({(budget.max_cost or 0) / MICRO:,g} USD)"


def _advice(task: TaskRecord, price: int) -> str:
    """Return advice if a price far above the estimate keeps a task from being bought."""
    if price <= UNSURE * task.price:
        return ""
    charged = f"an image was charged at {price / MICRO:g} USD"
    return f", because {charged}; if that is wrong, correct it with `resolve JOB --cost USD`"


def _first_day(now: float) -> int:
    """Return the first of the days whose prices count as recent."""
    return int(now // _DAY) - RECENT
