"""The tasks of the job that a run may buy: all that are planned, or those of them that `choose` picked."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping

from seedream_batch.manifest.core import ManifestCore
from seedream_batch.manifest.rows import TASK_COLUMNS, task_record
from seedream_batch.model.document import Json
from seedream_batch.model.task import TaskRecord

_TABLE = (
    "CREATE TEMP TABLE chosen (task INTEGER PRIMARY KEY, place INTEGER NOT NULL, waiting INTEGER NOT NULL)",
    # Those that are sent leave the index, so that what is due is found at once, however many were chosen.
    "CREATE INDEX temp.chosen_waiting ON chosen (place) WHERE waiting",
    """
    CREATE TEMP TRIGGER chosen_moves AFTER UPDATE OF state ON main.tasks
    BEGIN UPDATE chosen SET waiting = (NEW.state = 'planned') WHERE task = NEW.id; END
    """,
)

_ALL = "tasks WHERE state = 'planned' AND ordinal IS NOT NULL"
_CHOSEN = (
    "temp.chosen AS chosen CROSS JOIN tasks ON tasks.id = chosen.task"
    " WHERE chosen.waiting AND state = 'planned' AND ordinal IS NOT NULL"
)


class Chosen(ManifestCore):
    """What is planned. A choice is kept in a table of the connection, and is gone with it."""

    _picked = False

    def choose(self, chooses: Callable[[Mapping[str, Json]], bool]) -> int:
        """From here on only tasks whose cell `chooses` takes are due, counted and looked at; how many there are."""
        with self.group() as sql:
            for statement in _TABLE:
                sql.execute(statement)
            rows = sql.execute(
                "SELECT id, ordinal, state = 'planned', cell FROM tasks WHERE ordinal IS NOT NULL ORDER BY id"
            )
            sql.executemany(
                "INSERT INTO temp.chosen VALUES (?, ?, ?)", (row[:3] for row in rows if chooses(json.loads(row[3])))
            )
            count = sql.execute("SELECT count(*) FROM temp.chosen").fetchone()[0]
        self._picked = True
        return int(count)

    def is_chosen(self, task: TaskRecord) -> bool:
        """Whether the run may buy or resend the task."""
        sql = "SELECT 1 FROM temp.chosen WHERE task = ?"
        return not self._picked or self._connection.row(sql, (task.id,)) is not None

    def due(self, limit: int, now: float, only: Collection[int] | None = None) -> list[TaskRecord]:
        """Up to `limit` planned tasks of the job (of `only` these) whose pause is over, in the order of the job."""
        rows = self._connection.rows(
            f"SELECT {TASK_COLUMNS} FROM {self._planned} AND not_before <= :now"
            f" AND (:only IS NULL OR id IN (SELECT value FROM json_each(:only))) ORDER BY {self._order} LIMIT :limit",
            {"now": now, "only": _ids(only), "limit": limit},
        )
        return [task_record(row) for row in rows]

    def next_due(self, only: Collection[int] | None = None) -> float | None:
        """When the first planned task of the job (of `only` these) may be sent, in unix seconds; None without any."""
        row = self._connection.rows(
            f"SELECT min(not_before) FROM {self._planned}"
            " AND (:only IS NULL OR id IN (SELECT value FROM json_each(:only)))",
            {"only": _ids(only)},
        )[0]
        return None if row[0] is None else float(row[0])

    def planned_cost(self, limit: int | None) -> tuple[int, int]:
        """Images, and their estimated cost, of the planned tasks of the job; of the first `limit` of them, if given."""
        row = self._connection.rows(
            "SELECT coalesce(sum(images), 0), coalesce(sum(images * coalesce(prices.price, first.price)), 0) FROM"
            f" (SELECT images, price, model, resolution FROM {self._planned}"
            f" ORDER BY {self._order} LIMIT ?) AS first LEFT JOIN prices USING (model, resolution)",
            (-1 if limit is None else limit,),
        )[0]
        return int(row[0]), int(row[1])

    @property
    def _planned(self) -> str:
        return _CHOSEN if self._picked else _ALL

    @property
    def _order(self) -> str:
        return "place" if self._picked else "ordinal"

    @property
    def _of_job(self) -> str:
        """The condition on a row of `tasks` that it is one of the job, and chosen."""
        # Not with IN: that would begin at the first of the chosen, on each page of a long list.
        chosen = " AND EXISTS (SELECT 1 FROM temp.chosen WHERE chosen.task = tasks.id)" if self._picked else ""
        return f"tasks.ordinal IS NOT NULL{chosen}"


def _ids(numbers: Collection[int] | None) -> str | None:
    return None if numbers is None else json.dumps(sorted(numbers))
