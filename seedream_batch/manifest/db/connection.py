"""The interface to a manifest's database: statements, transactions with savepoints, translated errors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from seedream_batch.manifest.db.dialect import Dialect

if TYPE_CHECKING:
    # It imports psycopg, which is optional.
    from seedream_batch.manifest.db.postgres_workers import PostgresWorkers

CLOCK = "extract(epoch FROM clock_timestamp())::double precision"
"""The server's time in unix seconds: the one clock that all workers share."""

LEASE = 600.0
"""Worker lease in seconds, renewed by each heartbeat; much longer than a submission."""

PATIENCE = 30.0
"""Seconds to wait for another program that writes the manifest."""

UNLIMITED = 2**62
"""A `LIMIT` for all rows, as every database takes it."""


_INSERTED_TOGETHER = 500
"""Rows of one `INSERT`: SQLite takes 32,766 values in a statement."""


class Cursor(Protocol):
    """The result of a statement."""

    @property
    def rowcount(self) -> int:
        """The number of changed rows."""

    def fetchone(self) -> Any:
        """Return the next row, or None."""

    def fetchall(self) -> list[Any]:
        """Return all remaining rows."""

    def __iter__(self) -> Iterator[Any]: ...


class Sql(Protocol):
    """Executes statements of a transaction, with `?` for each value. Raises the driver's own exceptions."""

    def execute(self, sql: str, values: Any = ..., /) -> Cursor:
        """Execute a statement."""

    def executemany(self, sql: str, values: Any, /) -> Cursor:
        """Execute a statement once for each row of values; the cursor counts all changes."""


class Connection(ABC):
    """A connection to one manifest; used by one thread at a time."""

    begin = "BEGIN"
    """The statement that begins a writing transaction."""
    snapshot = "BEGIN"
    """The statement that begins a transaction with consistent answers."""
    in_process: bool
    """Whether statements take microseconds, so that an event loop may wait for them; commits may be slow."""
    dialect = Dialect()
    errors: type[Exception]
    """The base class of the driver's exceptions."""
    guards: type[Exception]
    """The exceptions for violated constraints, which are bugs of ours and passed on unchanged."""
    totals = "totals"
    """What all workers together spent and reserved, for `FROM`: one row, or several to be added up."""
    has_workers = False
    """Whether several runs can work on the manifest at all."""
    shared = False
    """Whether other runs may work on the manifest too."""
    sql: Sql

    def __init__(self, name: str) -> None:
        self.name = name
        """The manifest for people."""
        self.in_part = self.broken = False
        """Whether a savepoint is open, and whether something failed within it."""
        self.worker: int | None = None
        """The number of the run that is a worker on this connection, once `join` was called."""

    @property
    @abstractmethod
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""

    @property
    @abstractmethod
    def changes(self) -> int:
        """The number of rows changed so far, or a number that grows with it."""

    @abstractmethod
    def translate_error(self, error: Exception) -> Exception:
        """Map a driver exception to `StorageError` (disk), `ConnectionLost` or `ManifestError`."""

    @abstractmethod
    def each(self, sql: str, values: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query one at a time, without loading all of them."""

    @abstractmethod
    def columns(self, table: str) -> tuple[str, ...]:
        """Return the names of a table's columns."""

    @abstractmethod
    def continue_numbering(self, table: str) -> None:
        """Continue the numbering of new rows of a table after the existing ones."""

    @abstractmethod
    def store_selection(self, run: int | None, rows: Callable[[], Iterable[tuple[int, int, bool]]]) -> None:
        """Store a run's selection: the tasks it may buy, their positions, and whether they are planned."""

    @abstractmethod
    def selection(self, run: int | None, *, waiting: bool) -> str:
        """Return a `FROM` item for the selection as a table `chosen`; with `waiting`, sent tasks may be left out."""

    def allow_pauses(self) -> None:  # noqa: B027 - what may take its time anyway
        """Allow long pauses between the statements of the present transaction."""

    @abstractmethod
    def wait_for_lock(self, seconds: float = PATIENCE) -> None:
        """Set how long to wait for another program that writes the manifest."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""

    def begin_transaction(self) -> None:
        """Begin a writing transaction. Raises `Fenced` for a worker that has expired."""
        self.sql.execute(self.begin)

    def join(self, run: int, account: int | None) -> None:  # noqa: ARG002 - there are no others
        """Make the run a worker, from the commit of the present transaction on."""
        raise AssertionError(f"{self.name} allows one run at a time, not {run} and others")

    @property
    def workers(self) -> PostgresWorkers:
        """The workers that share the manifest; only if it `has_workers`."""
        raise AssertionError(f"{self.name} has no workers")

    def commit(self) -> None:
        """Commit durably. Raises the driver's own exceptions; the transaction is then not committed."""
        self.sql.execute("COMMIT")

    def reconnect(self) -> bool:
        """Reconnect, which may take long; return whether the commit during which the connection was lost is durable.

        Raises `ConnectionLost` if it fails, and `ManifestLocked` if somebody else used the manifest meanwhile.
        """
        raise AssertionError(f"{self.name} has no connection to lose")

    @abstractmethod
    def check_in_place(self) -> None:
        """Raise `StorageError` if what this connection writes would not be found again."""

    @abstractmethod
    def abort_retries(self) -> None:
        """Stop waiting for lost connections. Thread-safe."""

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        try:
            return self.sql.execute(sql, values).fetchall()
        except self.guards:
            raise
        except self.errors as error:
            raise self.translate_error(error) from error

    def row(self, sql: str, values: Sequence[object] = ()) -> tuple[Any, ...] | None:
        """Return the first row of a query, or None."""
        rows = self.rows(sql, values)
        return rows[0] if rows else None

    def numbers(self, sql: str, values: Sequence[object] = ()) -> array[int]:
        """Return the first column of all rows, 8 bytes each: a job may have a million tasks."""
        return array("q", (row[0] for row in self.each(sql, values)))

    def transaction(self) -> Transaction:
        """Begin a transaction that commits durably on exit, or a savepoint if one is already open.

        A savepoint can fail on its own. Nested further, a failure affects the outer savepoint, so its exception must
        not be caught before that has been left.
        """
        return Transaction(self)

    @contextmanager
    def without_savepoints(self) -> Iterator[None]:
        """Within a transaction: what is done within fails as a whole, and has no savepoint to be rolled back to."""
        self.in_part, self.broken = True, False
        try:
            yield
        finally:
            self.in_part = False
        if self.broken:
            raise RuntimeError("a change of the manifest failed, and its error was caught too soon")

    @contextmanager
    def translated_errors(self) -> Iterator[None]:
        """Translate the driver's exceptions, see `translate_error`."""
        try:
            yield
        except self.guards:
            raise
        except self.errors as error:
            raise self.translate_error(error) from error


def marks(values: Collection[object]) -> str:
    """Return placeholders for the values of an `IN`; `NULL` if there are none."""
    return ",".join("?" * len(values)) or "NULL"


def insert(sql: Sql, table: str, rows: Sequence[Sequence[object]]) -> None:
    """Insert rows with one statement for many of them; `table` names its columns, too."""
    for start in range(0, len(rows), _INSERTED_TOGETHER):
        page = rows[start : start + _INSERTED_TOGETHER]
        row = f"({marks(page[0])})"
        values = ", ".join([row] * len(page))
        sql.execute(f"INSERT INTO {table} VALUES {values}", [value for one in page for value in one])


class _Level(Enum):
    WHOLE = "whole"
    PART = "part"
    INSIDE = "inside"


class Transaction:
    """The result of `Connection.transaction`. A class rather than a generator, as each task needs dozens."""

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
                self._commit()
            else:
                self._roll_back()
                if error is None:
                    raise RuntimeError("a change of the manifest failed, and its error was caught too soon")
        except connection.guards:
            raise
        except connection.errors as failure:
            raise connection.translate_error(failure) from failure
        if isinstance(error, connection.errors) and not isinstance(error, connection.guards):
            raise connection.translate_error(error) from error

    def _commit(self) -> None:
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

    def _roll_back(self) -> None:
        connection = self._connection
        if self._level is _Level.PART:
            connection.in_part = False
        # A full disk makes SQLite roll back on its own, and so does a lost connection.
        if connection.in_transaction:
            if self._level is _Level.PART:
                connection.sql.execute("ROLLBACK TO part")
                connection.sql.execute("RELEASE part")
            else:
                connection.sql.execute("ROLLBACK")
