"""Whose hands a task is in, where several runs work on one manifest."""

from __future__ import annotations

from seedream_batch.manifest.base_store import BaseStore


class Ownership(BaseStore):
    """Conditions on rows of `tasks`, each behind the word that joins it to a query; none for a run that is alone.

    A task is in the hands of the worker that took it last, as long as that is at work. The numbers of workers grow, and
    they join one after the other: so one that is not newer than the newest, and not at work, never will be again.
    """

    def _mine(self, word: str) -> str:
        return f" {word} tasks.worker = {self._connection.worker}" if self.shared else ""

    def _free(self, word: str) -> str:
        """In nobody's hands."""
        return f" {word} {self._in_no_hands()}" if self.shared else ""

    def _free_or_mine(self, word: str) -> str:
        own = self._connection.worker
        mine = "" if own is None else f" OR tasks.worker = {own}"
        return f" {word} ({self._in_no_hands()}{mine})" if self.shared else ""

    def _in_no_hands(self) -> str:
        newest, at_work = self._connection.rows(
            "SELECT (SELECT coalesce(max(id), 0) FROM runs), (SELECT array_agg(run) FROM workers)"
        )[0]
        others = f" AND tasks.worker NOT IN ({', '.join(str(int(run)) for run in at_work)})" if at_work else ""
        return f"(tasks.worker IS NULL OR (tasks.worker <= {int(newest)}{others}))"
