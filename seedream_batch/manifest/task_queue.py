"""The tasks of the job that a run may buy: all planned ones, or those that `choose` selected."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping

from seedream_batch.manifest.db.connection import UNLIMITED
from seedream_batch.manifest.in_hand import Ownership
from seedream_batch.manifest.rows import TASK_COLUMNS, task_record
from seedream_batch.model.document import Json
from seedream_batch.model.task import TaskRecord

_ALL = "tasks WHERE state = 'planned' AND ordinal IS NOT NULL"


class TaskQueue(Ownership):
    """Planned tasks. A selection applies to this run alone."""

    _picked = False

    def choose(self, chooses: Callable[[Mapping[str, Json]], bool]) -> int:
        """Restrict the queue to tasks whose cell `chooses` accepts; return their number."""

        def rows() -> Iterator[tuple[int, int, bool]]:
            wanted = "SELECT id, ordinal, state = 'planned', cell FROM tasks WHERE ordinal IS NOT NULL ORDER BY id"
            for number, ordinal, planned, cell in self._connection.each(wanted):
                if chooses(json.loads(cell)):
                    yield number, ordinal, planned

        with self.group() as sql:
            self._connection.choose(self._database.run, rows)
            self._picked = True
            count = sql.execute(f"SELECT count(*) FROM {self._all_chosen}").fetchone()[0]
        return int(count)

    def is_chosen(self, task: TaskRecord) -> bool:
        """Return whether the run may buy or resend the task."""
        sql = f"SELECT 1 FROM {self._all_chosen} WHERE chosen.task = ?"
        return not self._picked or self._connection.row(sql, (task.id,)) is not None

    def due(self, limit: int, now: float, only: Collection[int] | None = None) -> list[TaskRecord]:
        """Return up to `limit` planned tasks of the job (of `only` these) whose pause is over, in the job's order.

        On a shared manifest, this worker takes ownership of them.
        """
        condition, values = self._among(only)
        due = f"FROM {self._planned} AND not_before <= ?{condition}"
        if self._connection.shared:
            self._take(due, (now, *values), limit)
        rows = self._connection.rows(
            f"SELECT {TASK_COLUMNS} {due}{self._mine('AND')} ORDER BY {self._order} LIMIT ?", (now, *values, limit)
        )
        return [task_record(row) for row in rows]

    def _take(self, due: str, values: tuple[object, ...], limit: int) -> None:
        """Take ownership of planned tasks, until this worker owns `limit` that are due."""
        with self.group() as sql:
            more = limit - sql.execute(f"SELECT count(*) {due}{self._mine('AND')}", values).fetchone()[0]
            if more > 0:
                # SKIP LOCKED passes over tasks that another worker is just taking.
                sql.execute(
                    f"UPDATE tasks SET worker = ? WHERE id IN (SELECT id {due}{self._free('AND')}"
                    f" ORDER BY {self._order} LIMIT ? FOR NO KEY UPDATE OF tasks SKIP LOCKED)",
                    (self._connection.worker, *values, more),
                )

    def next_due(self, only: Collection[int] | None = None) -> float | None:
        """Return when the first planned task of the job (of `only` these) may be sent, in unix seconds."""
        condition, values = self._among(only)
        of_all = f"SELECT min(not_before) FROM {self._planned}{condition}{self._free_or_mine('AND')}"
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
    def _planned(self) -> str:
        if not self._picked:
            return _ALL
        chosen = self._connection.chosen(self._database.run, waiting=True)
        # This join order matters: the index of the selection is in the job's order.
        return f"{chosen} CROSS JOIN tasks WHERE tasks.id = chosen.task AND state = 'planned' AND ordinal IS NOT NULL"

    @property
    def _order(self) -> str:
        return "place" if self._picked else "ordinal"

    @property
    def _of_job(self) -> str:
        """The condition on `tasks` that a task is in the job and selected."""
        # EXISTS rather than IN, which would scan from the start of the selection for each page of a long list.
        chosen = f" AND EXISTS (SELECT 1 FROM {self._all_chosen} WHERE chosen.task = tasks.id)" if self._picked else ""
        return f"tasks.ordinal IS NOT NULL{chosen}"

    @property
    def _all_chosen(self) -> str:
        return self._connection.chosen(self._database.run, waiting=False)

    def _among(self, numbers: Collection[int] | None) -> tuple[str, tuple[object, ...]]:
        if numbers is None:
            return "", ()
        condition, value = self._connection.in_list("tasks.id", numbers)
        return f" AND {condition}", (value,)
