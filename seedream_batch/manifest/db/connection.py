"""What the manifest asks of a database: statements, transactions with parts, and errors in our words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from types import TracebackType
from typing import Any, Protocol

CLOCK = "extract(epoch FROM clock_timestamp())::double precision"
"""The time of a server, in unix seconds: the one clock that all workers share."""

LEASE = 600.0
"""Seconds that the word of a worker counts after it was last heard of; far more than a submission may take."""

PATIENCE = 30.0
"""Seconds to wait for another program that writes into the manifest."""

UNLIMITED = 2**62
"""A `LIMIT` for all rows, as every database takes it."""


class Cursor(Protocol):
    """What a statement gives."""

    @property
    def rowcount(self) -> int:
        """The rows that it changed."""

    def fetchone(self) -> Any:
        """The next row, or None."""

    def fetchall(self) -> list[Any]:
        """All rows that are left."""

    def __iter__(self) -> Iterator[Any]: ...


class Sql(Protocol):
    """Statements of a transaction, with `?` where a value goes. They raise the database's own errors."""

    def execute(self, sql: str, values: Any = ..., /) -> Cursor:
        """Carries out one statement."""

    def executemany(self, sql: str, values: Any, /) -> Cursor:
        """Carries out one statement for each of many rows of values; the cursor counts the changes of all."""


class Connection(ABC):
    """A connection to one manifest; used by one thread at a time."""

    begin = "BEGIN"
    """How a transaction begins that is going to write."""
    snapshot = "BEGIN"
    """How one begins in which every answer is of the same moment."""
    quick: bool
    """Whether statements take microseconds, so that an event loop may wait for them; a commit may take long anyway."""
    errors: type[Exception]
    """What the database raises."""
    guards: type[Exception]
    """What it raises where a guard of the schema held: such an error is ours, and goes through as it is."""
    totals = "totals"
    """What was spent and is held, by all together, for `FROM`: a row, or several that count together."""
    has_workers = False
    """Whether runs may work on the manifest side by side at all."""
    shared = False
    """Whether runs work on the manifest beside this one."""
    sql: Sql

    def __init__(self, name: str) -> None:
        self.name = name
        """The manifest as people know it."""
        self.in_part = self.broken = False
        """Whether a part of a transaction is open, and whether something failed within it."""
        self.worker: int | None = None
        """The run that this connection works for beside others, once `join` was called."""

    @property
    @abstractmethod
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""

    @property
    @abstractmethod
    def changes(self) -> int:
        """Rows that were changed so far, or a number that grows with them."""

    @abstractmethod
    def translate_error(self, error: Exception) -> Exception:
        """An error of the database as `StorageError` where the disk or the line is to blame, else `ManifestError`."""

    @abstractmethod
    def each(self, sql: str, values: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        """The rows of a query, one after the other and never all at once."""

    @abstractmethod
    def columns(self, table: str) -> tuple[str, ...]:
        """The names of a table's columns."""

    @abstractmethod
    def number_on(self, table: str) -> None:
        """New rows of a table get numbers behind those that it has."""

    @abstractmethod
    def among(self, column: str, numbers: Collection[int]) -> tuple[str, object]:
        """The condition that a column is one of any number of numbers, and its value."""

    @abstractmethod
    def elements(self, column: str) -> str:
        """The strings of a JSON list as a table `element` with the column `value`, for `FROM`."""

    @abstractmethod
    def member(self, column: str, name: str) -> tuple[str, object]:
        """The JSON text of a member of a JSON object, `null` if it has none, and its value."""

    @abstractmethod
    def first_of(self, column: str) -> str:
        """Of a group of tasks with `min(ordinal)` in its answer: the column of the first one in the job."""

    @abstractmethod
    def choose(self, run: int | None, rows: Callable[[], Iterable[tuple[int, int, bool]]]) -> None:
        """Makes `chosen`: the tasks that a run may buy, their places, and whether they are planned."""

    @abstractmethod
    def chosen(self, run: int | None, *, waiting: bool) -> str:
        """The tasks that `choose` was given as a table `chosen`, for `FROM`; of `waiting` ones, fewer may do."""

    def for_update(self, table: str) -> str:  # noqa: ARG002 - there is nobody else
        """Behind a query: until the transaction ends, nobody else changes what it finds in a table."""
        return ""

    def take_time(self) -> None:  # noqa: B027 - what may take its time anyway
        """Within a transaction: it may take its time between two statements."""

    @abstractmethod
    def wait_for_lock(self, seconds: float = PATIENCE) -> None:
        """From here on waits so long, at most, for another program that writes into the manifest."""

    @abstractmethod
    def close(self) -> None:
        """Ends the connection."""

    def begin_transaction(self) -> None:
        """Begins a transaction that is going to write. Raises `Fenced` for a worker whose word does not count."""
        self.sql.execute(self.begin)

    def join(self, run: int, account: int | None) -> None:  # noqa: ARG002 - there are no others
        """Within the transaction that begins a run: from its commit on, the run is a worker beside others."""
        raise AssertionError(f"{self.name} is worked on by one run at a time, and not by {run} and others")

    def present(self) -> list[int]:
        """The workers whose sessions the server still has."""
        raise AssertionError(f"{self.name} has no workers")

    def startup_lock_holder(self) -> tuple[int, bool] | None:
        """The session that keeps others out, and whether it is that of a worker."""
        raise AssertionError(f"{self.name} has no workers")

    def may_expire(self, run: int) -> bool:
        """Whether a worker is in no transaction; then it begins none before this one ends."""
        raise AssertionError(f"{self.name} has no workers, and not {run}")

    def end_session(self, run: int) -> None:
        """Ends the session of a worker, if it is there."""
        raise AssertionError(f"{self.name} has no workers, and not {run}")

    def lock_startup(self, wait: Callable[[], None]) -> None:
        """Keeps other workers from joining; `wait` is called until one that does the same has let others in."""
        raise AssertionError(f"{self.name} has no workers to call {wait} for")

    def unlock_startup(self) -> None:
        """Lets other workers join."""
        raise AssertionError(f"{self.name} has no workers")

    def commit(self) -> None:
        """Makes a transaction durable. Raises the database's own errors; then it is not."""
        self.sql.execute("COMMIT")

    def again(self) -> bool:
        """Makes a line that is lost anew, and may take its time; whether what was being committed then is durable.

        Raises `ConnectionLost` if that is of no use, and `ManifestLocked` if somebody else has the manifest.
        """
        raise AssertionError(f"{self.name} has no line to lose")

    @abstractmethod
    def abort_retries(self) -> None:
        """From here on, and on any thread, waits for no line any more."""

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        try:
            return self.sql.execute(sql, values).fetchall()
        except self.guards:
            raise
        except self.errors as error:
            raise self.translate_error(error) from error

    def row(self, sql: str, values: Sequence[object] = ()) -> tuple[Any, ...] | None:
        """The first row of a query."""
        found = self.rows(sql, values)
        return found[0] if found else None

    def numbers(self, sql: str, values: Sequence[object] = ()) -> array[int]:
        """The first column of all rows, in 8 bytes each: of a million tasks there may be no more at once."""
        return array("q", (row[0] for row in self.each(sql, values)))

    def transaction(self) -> Transaction:
        """All or nothing, durable on exit; inside another transaction a part of it that can fail by itself.

        A part within a part fails with it: its error must not be caught before it has left the outer one.
        """
        return Transaction(self)

    @contextmanager
    def told(self) -> Iterator[None]:
        """The database's errors in our words, as `translate_error` has them."""
        try:
            yield
        except self.guards:
            raise
        except self.errors as error:
            raise self.translate_error(error) from error


def marks(values: Collection[object]) -> str:
    """So many marks for the values of an `IN`, which is of none if there are none."""
    return ",".join("?" * len(values)) or "NULL"


class _Level(Enum):
    WHOLE = "whole"
    PART = "part"
    INSIDE = "inside"


class Transaction:
    """What `Connection.transaction` gives. A task needs dozens, so it is no generator, and a part has no parts."""

    __slots__ = ("_connection", "_level")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._level = _Level.INSIDE

    def __enter__(self) -> Sql:
        connection = self._connection
        try:
            if not connection.in_transaction:
                self._level = _Level.WHOLE
                connection.begin_transaction()
            elif not connection.in_part:
                self._level = _Level.PART
                connection.sql.execute("SAVEPOINT part")
                connection.in_part, connection.broken = True, False
        except connection.errors as error:
            raise connection.translate_error(error) from error
        return connection.sql

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection = self._connection
        try:
            if self._level is _Level.INSIDE:
                connection.broken |= error is not None
            elif error is None and not (self._level is _Level.PART and connection.broken):
                self._keep()
            else:
                self._take_back()
                if error is None:
                    raise RuntimeError("a change of the manifest failed, and its error was caught too soon")
        except connection.guards:
            raise
        except connection.errors as failure:
            raise connection.translate_error(failure) from failure
        if isinstance(error, connection.errors) and not isinstance(error, connection.guards):
            raise connection.translate_error(error) from error

    def _keep(self) -> None:
        connection = self._connection
        if self._level is _Level.PART:
            connection.in_part = False
            connection.sql.execute("RELEASE part")
            return
        try:
            connection.commit()
        except connection.errors:
            if connection.in_transaction:
                connection.sql.execute("ROLLBACK")
            raise

    def _take_back(self) -> None:
        connection = self._connection
        if self._level is _Level.PART:
            connection.in_part = False
        # A full disk makes SQLite roll back by itself, and a line that is gone has done so.
        if connection.in_transaction:
            if self._level is _Level.PART:
                connection.sql.execute("ROLLBACK TO part")
                connection.sql.execute("RELEASE part")
            else:
                connection.sql.execute("ROLLBACK")
