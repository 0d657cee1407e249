"""What the parts of a manifest share: its connection, the run that writes it, and the log."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from seedream_batch.errors import StaleTransition
from seedream_batch.manifest.db.connection import Connection, Cursor, Sql, Transaction, insert
from seedream_batch.manifest.facts import Facts

Event = tuple[float, int, int | None, str, str, str]
"""A row of the log: time in unix seconds, task, image, old state, new state, reason."""


class OneByOne(Exception):
    """Raised if items passed to a method together affect each other: they have to be passed one at a time."""


class Database:
    """A connection that may write, and who writes on it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.run: int | None = None
        """The run that events are logged for."""
        self.account = 1
        """The account that tasks are sent with."""
        with connection.transaction() as sql:
            sql.execute("INSERT INTO facts VALUES ('manifest_id', ?) ON CONFLICT DO NOTHING", (secrets.token_hex(6),))
        self.id = Facts(connection).get("manifest_id")

    def log(self, sql: Sql, events: Sequence[Event]) -> None:
        insert(sql, "events (run, at, task, image, old, new, why)", [(self.run, *event) for event in events])


@dataclass(eq=False)
class Part:
    """A part of a manifest.

    Every public method is a transaction, or a savepoint of the one that is open; those that take a `sql` belong to the
    transaction of their caller.
    """

    _database: Database

    def __post_init__(self) -> None:
        self._connection = self._database.connection

    def _group(self) -> Transaction:
        return self._connection.transaction()


def expect_rows(cursor: Cursor, count: int, what: str) -> None:
    """Raise `StaleTransition` unless a statement changed `count` rows."""
    if cursor.rowcount != count:
        raise StaleTransition(f"{what} was not found; nothing was changed")
