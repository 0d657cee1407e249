"""Which worker owns a task, if several runs work on one manifest."""

from __future__ import annotations

from seedream_batch.manifest.db.connection import Connection


class Ownership:
    """Conditions on rows of `tasks`, each prefixed with the keyword that joins it to a query; empty for a single run.

    A task is owned by the worker that last took it, as long as that worker is active. Worker numbers grow and workers
    join one after the other, so a worker that is neither newer than the newest one nor active will never be active
    again.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def mine(self, word: str) -> str:
        """Return the condition that this worker took the task."""
        return f" {word} tasks.worker = {self._connection.worker}" if self._connection.shared else ""

    def free(self, word: str) -> str:
        """Return the condition that no active worker owns the task."""
        return f" {word} {self._unowned()}" if self._connection.shared else ""

    def free_or_mine(self, word: str) -> str:
        """Return the condition that no other worker owns the task."""
        own = self._connection.worker
        mine = "" if own is None else f" OR tasks.worker = {own}"
        return f" {word} ({self._unowned()}{mine})" if self._connection.shared else ""

    def theirs(self) -> str:
        """Return the condition, without a keyword, that another worker owns the task."""
        return f"NOT {self._unowned()} AND tasks.worker != {self._connection.worker or 0}"

    def _unowned(self) -> str:
        newest, active = self._connection.rows(
            "SELECT (SELECT coalesce(max(id), 0) FROM runs), (SELECT array_agg(run) FROM workers)"
        )[0]
        others = f" AND tasks.worker NOT IN ({', '.join(str(int(run)) for run in active)})" if active else ""
        return f"(tasks.worker IS NULL OR (tasks.worker <= {int(newest)}{others}))"
