"""Money: what is held for a task in flight, and what takes its place when it ends."""

from __future__ import annotations

from seedream_batch.manifest.connection import Sql
from seedream_batch.manifest.core import ManifestCore
from seedream_batch.model.job import Budget
from seedream_batch.model.task import TaskRecord, Totals


class Accounts(ManifestCore):
    """Reservations and costs; every change of them shares the transaction of the move that it belongs to."""

    def totals(self) -> Totals:
        """What was spent, and what is held."""
        sql = f"SELECT reserved_images, reserved, images, cost FROM {self._connection.totals}"
        return Totals(*self._connection.rows(sql)[0])

    def _add(self, sql: Sql, *, reserved_images: int = 0, reserved: int = 0, images: int = 0, cost: int = 0) -> None:
        """Changes the totals: on a shared manifest the part of this worker, so that none waits for another."""
        worker = self._connection.worker
        table, row = ("totals", '"only"') if worker is None else ("workers", "run")
        sql.execute(
            f"UPDATE {table} SET reserved_images = reserved_images + ?, reserved = reserved + ?, images = images + ?,"
            f" cost = cost + ? WHERE {row} = ?",
            (reserved_images, reserved, images, cost, 1 if worker is None else worker),
        )

    def _one_at_a_time(self, sql: Sql) -> None:
        """On a shared manifest: until the transaction ends no other worker takes turns, or money from the budget."""
        if self.shared:
            sql.execute("SELECT 1 FROM pace FOR UPDATE").fetchone()

    def price_is_known(self, task: TaskRecord) -> bool:
        """Whether the service has said what an image like the task's costs."""
        sql = "SELECT 1 FROM prices WHERE model = ? AND resolution = ?"
        return self._connection.row(sql, (task.model, task.resolution)) is not None

    def _prices(self) -> dict[tuple[str, str], int]:
        """What an image of each model and resolution cost the last time."""
        rows = self._connection.rows("SELECT model, resolution, price FROM prices")
        return {(row[0], row[1]): int(row[2]) for row in rows}

    @staticmethod
    def _over_budget(budget: Budget, totals: Totals) -> str:
        """What of a budget these totals would pass; empty if nothing."""
        images = totals.images + totals.reserved_images
        cost = totals.cost + totals.reserved
        if budget.max_images is not None and images > budget.max_images:
            return f"budget.max_images {budget.max_images}"
        if budget.max_cost is not None and cost > budget.max_cost:
            return f"budget.max_cost_usd {budget.max_cost / 1_000_000:g}"
        return ""

    def _charged(self, sql: Sql, task: TaskRecord, price: int) -> None:
        """An image of the task was charged at a price: a new one raises what is held for tasks like it in flight."""
        kind = (task.model, task.resolution)
        known = sql.execute("SELECT price FROM prices WHERE model = ? AND resolution = ?", kind).fetchone()
        if known is not None and known[0] == price:
            return
        # Those who claim right now hold what it cost before.
        self._one_at_a_time(sql)
        sql.execute(
            "INSERT INTO prices (model, resolution, price) VALUES (?, ?, ?)"
            " ON CONFLICT (model, resolution) DO UPDATE SET price = excluded.price",
            (*kind, price),
        )
        like = "SELECT 1 FROM tasks WHERE id = attempts.task AND model = ? AND resolution = ?"
        locked = self._connection.for_update("attempts")
        too_low = sql.execute(
            f"SELECT key, reserved_images, reserved FROM attempts WHERE reserved_images > 0"
            f" AND reserved < reserved_images * ? AND EXISTS ({like}) ORDER BY key{locked}",
            (price, *kind),
        ).fetchall()
        sql.executemany(
            "UPDATE attempts SET reserved = ? WHERE key = ?", [(images * price, key) for key, images, _ in too_low]
        )
        self._add(sql, reserved=sum(images * price - held for _, images, held in too_low))

    def _reserved_price(self, sql: Sql, task: TaskRecord) -> int:
        """What an image was taken to cost when the attempt was opened; the job may say something else by now."""
        images, held = sql.execute(
            "SELECT reserved_images, reserved FROM attempts WHERE task = ? AND number = ?", (task.id, task.attempt)
        ).fetchone() or (0, 0)
        return int(held // images) if images else task.price

    def _release(self, sql: Sql, task: TaskRecord, outcome: str, *, images: int = 0, cost: int = 0) -> None:
        """Ends the reservation of the task's attempt; what it really cost takes its place."""
        held_images, held = sql.execute(
            # Another worker may just be raising what is held.
            "SELECT reserved_images, reserved FROM attempts WHERE task = ? AND number = ?"
            f"{self._connection.for_update('attempts')}",
            (task.id, task.attempt),
        ).fetchone()
        sql.execute(
            "UPDATE attempts SET outcome = ?, reserved_images = 0, reserved = 0, images = ?, cost = ?"
            " WHERE task = ? AND number = ?",
            (outcome, images, cost, task.id, task.attempt),
        )
        self._add(sql, reserved_images=-held_images, reserved=-held, images=images, cost=cost)
