"""Named facts about a manifest and its job: small texts, each stored under one name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from seedream_batch.manifest.db.connection import Connection

ENTERED = "entered"
"""Fact: what the tasks of the job were made from, on a shared manifest."""

ACCOUNT = "account"
"""Fact: a salt, and for each known key its salted hash and the number of its account."""

MOVED_TO = "moved_to"
"""Fact: where the manifest was moved; from then on it is read-only."""

_TASK_TIMES = "task_times"


class Facts:
    """The facts of a manifest. On a read-only connection they cannot be set."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, name: str) -> str:
        """Return a fact by its name; empty if it was never set."""
        row = self._connection.row("SELECT value FROM facts WHERE name = ?", (name,))
        return str(row[0]) if row else ""

    def set(self, facts: Mapping[str, str]) -> None:
        """Store facts: `job`, `job_file`, `service`, `created_at` and others."""
        with self._connection.transaction() as sql:
            sql.executemany(
                "INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                list(facts.items()),
            )

    def task_times(self) -> dict[str, list[float]]:
        """Return the durations of tasks in seconds by resolution, as the last run stored them."""
        seconds: dict[str, list[float]] = json.loads(self.get(_TASK_TIMES) or "{}")
        return seconds

    def set_task_times(self, seconds: Mapping[str, Sequence[float]]) -> None:
        """Store the durations of tasks by resolution, for the next run."""
        self.set({_TASK_TIMES: json.dumps(seconds)})
