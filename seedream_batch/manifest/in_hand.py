"""Which worker owns a task, if several runs work on one manifest."""

from __future__ import annotations

from seedream_batch.manifest.base_store import BaseStore


class Ownership(BaseStore):
    """Conditions on rows of `tasks`, each prefixed with the keyword that joins it to a query; empty for a single run.

    A task is owned by the worker that last took it, as long as that worker is active. Worker numbers grow and workers
    join one after the other, so a worker that is neither newer than the newest one nor active will never be active
    again.
    """

    def _mine(self, word: str) -> str:
        return f" {word} tasks.worker = {self._connection.worker}" if self._connection.shared else ""

    def _free(self, word: str) -> str:
        """Return the condition that no active worker owns the task."""
        return f" {word} {self._in_no_hands()}" if self._connection.shared else ""

    def _free_or_mine(self, word: str) -> str:
        own = self._connection.worker
        mine = "" if own is None else f" OR tasks.worker = {own}"
        return f" {word} ({self._in_no_hands()}{mine})" if self._connection.shared else ""

    def _in_no_hands(self) -> str:
        newest, at_work = self._connection.rows(
            "SELECT (SELECT coalesce(max(id), 0) FROM runs), (SELECT array_agg(run) FROM workers)"
        )[0]
        others = f" AND tasks.worker NOT IN ({', '.join(str(int(run)) for run in at_work)})" if at_work else ""
        return f"(tasks.worker IS NULL OR (tasks.worker <= {int(newest)}{others}))"
