"""The manifest in a file: an SQLite connection with its settings and dialect."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from seedream_batch.errors import ManifestBusy, ManifestError, StorageError, UsageError, translate_os_errors
from seedream_batch.manifest.db.connection import PATIENCE, Connection
from seedream_batch.manifest.db.sqlite_schema import check_version, is_newest, migrate

OLDEST = (3, 37, 0)
"""The first version of SQLite with strict tables."""

STATEMENTS = 512
"""Prepared statements kept: those for many tasks at once differ by their number, and preparing one takes longer than
running it."""

_STORAGE_CODES = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
}

_SMALLEST = 100
"""Size in bytes of the header of every SQLite database."""

_CHOSEN = (
    "CREATE TEMP TABLE chosen (task INTEGER PRIMARY KEY, place INTEGER NOT NULL, waiting INTEGER NOT NULL)",
    # A partial index: sent tasks leave it, so that due ones are found quickly in a large selection.
    "CREATE INDEX temp.chosen_waiting ON chosen (place) WHERE waiting",
    """
    CREATE TEMP TRIGGER chosen_moves AFTER UPDATE OF state ON main.tasks
    BEGIN UPDATE chosen SET waiting = (NEW.state = 'planned') WHERE task = NEW.id; END
    """,
)


class SqliteConnection(Connection):
    """A connection to a manifest file. Raises `ManifestError` for a file that is not a manifest or too new.

    Opened for writing, the file is created if necessary, and migrated to the newest version. Opened for reading, an
    older version is read through a migrated copy.
    """

    begin = "BEGIN IMMEDIATE"
    in_process = True
    errors = sqlite3.Error
    guards = sqlite3.IntegrityError

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        super().__init__(str(path))
        if sqlite3.sqlite_version_info < OLDEST:
            oldest = ".".join(map(str, OLDEST))
            raise UsageError(
                f"the SQLite of this Python is {sqlite3.sqlite_version}, and a manifest needs {oldest} or newer: use"
                " another Python, or a manifest on PostgreSQL"
            )
        check_type(path)
        if not read_only:
            _make_private(path)
        if path.is_file() and 0 < path.stat().st_size < _SMALLEST:
            # SQLite would treat it as an empty database and overwrite it.
            raise ManifestError(f"{path} is not a manifest of seedream-batch")
        with self.translated_errors():
            self.sql = self._raw = _connected(path, "ro" if read_only else "rwc")
        try:
            with self.translated_errors():
                version = check_version(self._raw, str(path))
                if read_only and not is_newest(version):
                    self._read_as_newest(version)
                elif not read_only:
                    self._raw.execute("PRAGMA journal_mode = WAL")
                    # NORMAL may lose the latest commits of a WAL in a power failure; an intent must not be lost.
                    self._raw.execute("PRAGMA synchronous = FULL")
                    self._raw.execute("PRAGMA foreign_keys = ON")
                    migrate(self._raw, version)
        except BaseException:
            self._raw.close()
            raise
        self._path = path
        self._file = _identity(path)

    def _read_as_newest(self, version: int) -> None:
        """Read a manifest of an earlier version through a migrated copy, which ends with the connection."""
        if not version:
            raise ManifestError(f"{self.name} is empty: the first run was interrupted; run again")
        # A temporary database without a name: private, and moved to disk if it is large.
        copy = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        try:
            self._raw.backup(copy)
            migrate(copy, version)
        except BaseException:
            copy.close()
            raise
        self._raw.close()
        self.sql = self._raw = copy

    @property
    def in_transaction(self) -> bool:
        return self._raw.in_transaction

    @property
    def changes(self) -> int:
        return self._raw.total_changes

    def translate_error(self, error: Exception) -> Exception:
        return _translated_error(self.name, error)

    def each(self, sql: str, values: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        with self.translated_errors():
            yield from self._raw.execute(sql, values)

    def columns(self, table: str) -> tuple[str, ...]:
        return tuple(row[1] for row in self.rows(f"PRAGMA table_info({table})"))

    def continue_numbering(self, table: str) -> None:
        pass  # the next number is one more than the largest

    def store_selection(self, run: int | None, rows: Callable[[], Iterable[tuple[int, int, bool]]]) -> None:  # noqa: ARG002 - one a connection
        for statement in _CHOSEN:
            self._raw.execute(statement)
        self._raw.executemany("INSERT INTO temp.chosen VALUES (?, ?, ?)", rows())

    def selection(self, run: int | None, *, waiting: bool) -> str:  # noqa: ARG002 - one a connection
        return "(SELECT task, place FROM temp.chosen WHERE waiting) AS chosen" if waiting else "temp.chosen AS chosen"

    def wait_for_lock(self, seconds: float = PATIENCE) -> None:
        self.rows(f"PRAGMA busy_timeout = {round(seconds * 1000)}")

    def check_in_place(self) -> None:
        # SQLite goes on writing to a file that has no name any more.
        if _identity(self._path) != self._file:
            raise StorageError(f"{self.name} was moved, replaced or deleted while it was in use; put it back")

    def abort_retries(self) -> None:
        pass

    def close(self) -> None:
        self._raw.close()


def _identity(path: Path) -> tuple[int, int] | None:
    """Return the device and inode of a file; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def check_type(path: Path) -> None:
    """Raise `StorageError` for what is not a file, and for a broken link, which would start a second manifest."""
    with translate_os_errors(path):
        present = path.exists()
        if not present and path.is_symlink():
            raise StorageError(
                f"{path} is a link to {path.readlink()}, which does not exist; mount or restore it first: without the"
                " manifest, the job would be charged again"
            )
    if present and not path.is_file():
        raise StorageError(f"{path} is not a file; put the manifest back there")


def is_blank(path: Path) -> bool:
    """Return whether a file is still empty, as an interrupted first run may leave it. Raises `ManifestError`."""
    size = path.stat().st_size
    if size < _SMALLEST:
        return not size
    try:
        with closing(_connected(path, "ro")) as raw:
            return not check_version(raw, str(path))
    except sqlite3.Error as error:
        raise _translated_error(str(path), error) from error


def _connected(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.resolve().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=PATIENCE,
        cached_statements=STATEMENTS,
    )


def _translated_error(name: str, error: Exception) -> Exception:
    # The low byte of an extended code is the primary code.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    kind: type[Exception] = StorageError if code in _STORAGE_CODES else ManifestError
    if code == sqlite3.SQLITE_BUSY:
        kind = ManifestBusy
    hint = "; restore it from a backup" if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB} else ""
    return kind(f"{name}: {error} ({getattr(error, 'sqlite_errorname', 'SQLITE_ERROR')}){hint}")


def _make_private(path: Path) -> None:
    """Create the file with private permissions before SQLite does: it holds prompts and live links."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error
