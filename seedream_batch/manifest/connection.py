"""One SQLite connection with its settings, its transactions and its errors in our words."""

from __future__ import annotations

import os
import sqlite3
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any

from seedream_batch.errors import ManifestBusy, ManifestError, StorageError

PATIENCE = 30.0
"""Seconds to wait for another program that writes into the manifest."""

_STORAGE_CODES = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
}


_SMALLEST = 100
"""Bytes of the header that every SQLite database has."""


class Connection:
    """A connection to one manifest file; used by one thread at a time."""

    def __init__(
        self, path: Path, *, check: Callable[[sqlite3.Connection, str], None], read_only: bool = False
    ) -> None:
        """`check` gets the connection and the file's name before anything is written, and raises if it is not ours."""
        self.path = path
        self.in_part = self.broken = False
        """Whether a part of a transaction is open, and whether something failed within it."""
        mode = "ro" if read_only else "rwc"
        if not read_only:
            _make_private(path)
        if path.is_file() and 0 < path.stat().st_size < _SMALLEST:
            # SQLite would take it for an empty database and write over it.
            raise ManifestError(f"{path} is no manifest of seedream-batch")
        with told(path):
            self.raw = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode={mode}",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=PATIENCE,
            )
        try:
            with told(path):
                check(self.raw, str(path))
                if not read_only:
                    self.raw.execute("PRAGMA journal_mode = WAL")
                    # NORMAL may lose the newest commits of a WAL when the power goes; an intent must not be lost.
                    self.raw.execute("PRAGMA synchronous = FULL")
                    self.raw.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            self.raw.close()
            raise

    def rows(self, sql: str, values: Sequence[object] | Mapping[str, object] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        try:
            return self.raw.execute(sql, values).fetchall()
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            raise told_of(self.path, error) from error

    def row(self, sql: str, values: Sequence[object] | Mapping[str, object] = ()) -> tuple[Any, ...] | None:
        """The first row of a query."""
        found = self.rows(sql, values)
        return found[0] if found else None

    def numbers(self, sql: str, values: Sequence[object] = ()) -> array[int]:
        """The first column of all rows, in 8 bytes each: of a million tasks there may be no more at once."""
        try:
            return array("q", (row[0] for row in self.raw.execute(sql, values)))
        except sqlite3.Error as error:
            raise told_of(self.path, error) from error

    def transaction(self) -> Transaction:
        """All or nothing, durable on exit; inside another transaction a part of it that can fail by itself.

        A part within a part fails with it: its error must not be caught before it has left the outer one.
        """
        return Transaction(self)

    def wait_for_lock(self, seconds: float = PATIENCE) -> None:
        """From here on waits so long, at most, for another program that writes into the file."""
        self.rows(f"PRAGMA busy_timeout = {round(seconds * 1000)}")

    def close(self) -> None:
        """Ends the connection."""
        self.raw.close()


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

    def __enter__(self) -> sqlite3.Connection:
        connection = self._connection
        try:
            if not connection.raw.in_transaction:
                self._level = _Level.WHOLE
                connection.raw.execute("BEGIN IMMEDIATE")
            elif not connection.in_part:
                self._level = _Level.PART
                connection.raw.execute("SAVEPOINT part")
                connection.in_part, connection.broken = True, False
        except sqlite3.Error as error:
            raise told_of(connection.path, error) from error
        return connection.raw

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
        except sqlite3.IntegrityError:
            # A guard of ours that held.
            raise
        except sqlite3.Error as failure:
            raise told_of(connection.path, failure) from failure
        if isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.IntegrityError):
            raise told_of(connection.path, error) from error

    def _keep(self) -> None:
        raw = self._connection.raw
        if self._level is _Level.PART:
            self._connection.in_part = False
            raw.execute("RELEASE part")
            return
        try:
            raw.execute("COMMIT")
        except sqlite3.Error:
            if raw.in_transaction:
                raw.execute("ROLLBACK")
            raise

    def _take_back(self) -> None:
        raw = self._connection.raw
        if self._level is _Level.PART:
            self._connection.in_part = False
        # A full disk makes SQLite roll back by itself.
        if raw.in_transaction:
            if self._level is _Level.PART:
                raw.execute("ROLLBACK TO part")
                raw.execute("RELEASE part")
            else:
                raw.execute("ROLLBACK")


@contextmanager
def told(path: Path) -> Iterator[None]:
    """SQLite's errors in our words, as `told_of` has them."""
    try:
        yield
    except sqlite3.IntegrityError:
        # A guard of ours that held.
        raise
    except sqlite3.Error as error:
        raise told_of(path, error) from error


def told_of(path: Path, error: sqlite3.Error) -> Exception:
    """An error of SQLite as `StorageError` where the disk is to blame, else as `ManifestError`."""
    # Extended codes carry the primary one in their low byte.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    name = getattr(error, "sqlite_errorname", "SQLITE_ERROR")
    kind: type[Exception] = StorageError if code in _STORAGE_CODES else ManifestError
    if code == sqlite3.SQLITE_BUSY:
        kind = ManifestBusy
    return kind(f"{path}: {error} ({name})")


def _make_private(path: Path) -> None:
    """Makes the file before SQLite would: it has prompts and live links, and its journals copy its permissions."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error
