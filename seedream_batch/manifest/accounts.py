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
        sql = "SELECT reserved_images, reserved, images, cost FROM totals"
        return Totals(*self._connection.rows(sql)[0])

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

    def _over_budget(self, task: TaskRecord, budget: Budget, price: int) -> str:
        if budget.max_images is None and budget.max_cost is None:
            return ""
        totals = self.totals()
        images = totals.images + totals.reserved_images + task.images
        cost = totals.cost + totals.reserved + task.images * price
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
        sql.execute(
            "INSERT INTO prices VALUES (?, ?, ?) ON CONFLICT (model, resolution) DO UPDATE SET price = excluded.price",
            (*kind, price),
        )
        like = "SELECT 1 FROM tasks WHERE id = attempts.task AND model = ? AND resolution = ?"
        raised = sql.execute(
            "UPDATE attempts SET reserved = reserved_images * ? WHERE reserved_images > 0"
            f" AND reserved < reserved_images * ? AND EXISTS ({like})",
            (price, price, *kind),
        )
        if raised.rowcount:
            sql.execute("UPDATE totals SET reserved = (SELECT sum(reserved) FROM attempts)")

    def _reserved_price(self, sql: Sql, task: TaskRecord) -> int:
        """What an image was taken to cost when the attempt was opened; the job may say something else by now."""
        images, held = sql.execute(
            "SELECT reserved_images, reserved FROM attempts WHERE task = ? AND number = ?", (task.id, task.attempt)
        ).fetchone() or (0, 0)
        return int(held // images) if images else task.price

    def _release(self, sql: Sql, task: TaskRecord, outcome: str, *, images: int = 0, cost: int = 0) -> None:
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
