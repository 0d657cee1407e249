"""The manifest in a schema of a PostgreSQL database: one connection, which is made anew when the line breaks."""

from __future__ import annotations

import itertools
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from seedream_batch.errors import LineLost, ManifestBusy, ManifestError, ManifestLocked, StorageError, UsageError
from seedream_batch.manifest.connection import PATIENCE, Connection, Cursor
from seedream_batch.manifest.postgres_schema import Raw, check_version, migrate
from seedream_batch.model.place import Server

try:
    import psycopg
    from psycopg import sql as composed
    from psycopg.pq import TransactionStatus
except ImportError:
    raise UsageError(
        "a manifest on PostgreSQL needs psycopg; install it with: pip install 'seedream-batch[postgres]'"
    ) from None

LINE_PATIENCE = 300.0
"""Seconds in which a database that is gone may come back before a run gives up."""

CONNECT_TIMEOUT = 10
"""Seconds for one try to connect."""

_FULL = "53"
"""The class of PostgreSQL's errors for resources that are used up: the disk, memory, connections."""

_GONE = ("08", "57P")
"""Those of a line that is gone, and of a server that ends or begins."""

_PAGE = 2000
"""Rows of a long answer that are fetched together."""


class PostgresConnection(Connection):
    """A connection to a manifest on a server. Raises `ManifestError`, `StorageError`, and `LineLost` without a server.

    Opened for writing, the schema is made if need be, and brought to the newest version.
    """

    snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ"
    quick = False
    errors = psycopg.Error
    guards = psycopg.IntegrityError

    def __init__(self, server: Server, *, read_only: bool = False) -> None:
        self._server = server
        self._read_only = read_only
        self._hurried = threading.Event()
        self._lock_timeout = PATIENCE
        self._changes = 0
        self._named = 0
        super().__init__(server.name)
        self._raw = _connect(self._server)
        self.sql = self
        try:
            with self.told():
                check_version(self._raw, server.schema, self.name, old=not read_only)
                self._hold()
                if not read_only:
                    migrate(self._raw, server.schema, self.name)
                self._settle()
        except BaseException:
            self._raw.close()
            raise

    # Statements

    def execute(self, sql: str, values: Sequence[object] = (), /) -> Cursor:
        """Carries out one statement."""
        cursor = self._raw.execute(_translated(sql), [_clean(value) for value in values])
        if cursor.rowcount > 0:
            self._changes += cursor.rowcount
        return cursor

    def executemany(self, sql: str, values: Iterable[Sequence[object]], /) -> object:
        """Carries out one statement for each of many rows of values."""
        cursor = self._raw.cursor()
        cursor.executemany(_translated(sql), ([_clean(value) for value in row] for row in values))
        self._changes += max(cursor.rowcount, 0)
        return cursor

    def each(self, sql: str, values: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        self._named += 1
        with self.told(), self._raw.cursor(name=f"each_{self._named}", withhold=not self.in_transaction) as cursor:
            cursor.itersize = _PAGE
            cursor.execute(_translated(sql), [_clean(value) for value in values])
            yield from cursor

    def commit(self) -> None:
        # The answer to a COMMIT may be lost with the line: then the server is asked what became of it.
        row = self._raw.execute("SELECT pg_current_xact_id_if_assigned()::text").fetchone()
        try:
            self._raw.execute("COMMIT")
        except psycopg.Error as error:
            told = self.told_of(error)
            if not isinstance(told, LineLost):
                raise
            self.again()
            if row is not None and row[0] is not None and not self._was_committed(row[0]):
                raise told from error

    def again(self) -> None:
        """Connects anew. Raises `LineLost` when the server does not come back in time."""
        deadline = time.monotonic() + LINE_PATIENCE
        pause = 0.1
        while True:
            with suppress(psycopg.Error):
                self._raw.close()
            try:
                self._raw = _connect(self._server)
                self._settle()
                self._hold()
                self._still_ours()
            except (LineLost, psycopg.Error) as error:
                if time.monotonic() > deadline or self._hurried.wait(pause):
                    raise error if isinstance(error, LineLost) else self.told_of(error) from error
                pause = min(2 * pause, 5.0)
            else:
                self.in_part = self.broken = False
                return

    def hurry(self) -> None:
        self._hurried.set()

    # What only PostgreSQL says in its own way

    @property
    def in_transaction(self) -> bool:
        return self._raw.info.transaction_status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}

    @property
    def changes(self) -> int:
        return self._changes

    def told_of(self, error: Exception) -> Exception:
        state = getattr(error, "sqlstate", None) or ""
        text = str(error).strip().partition("\n")[0] or type(error).__name__
        kind: type[Exception] = StorageError if state.startswith(_FULL) else ManifestError
        if self._is_lost() or state.startswith(_GONE) or (not state and isinstance(error, psycopg.OperationalError)):
            kind = LineLost
        elif isinstance(error, psycopg.errors.LockNotAvailable):
            kind = ManifestBusy
        return kind(f"{self.name}: {text}")

    def columns(self, table: str) -> tuple[str, ...]:
        return tuple(
            row[0]
            for row in self.rows(
                "SELECT column_name FROM information_schema.columns WHERE table_schema = ? AND table_name = ?"
                " ORDER BY ordinal_position",
                (self._server.schema, table),
            )
        )

    def number_on(self, table: str) -> None:
        largest = f"SELECT max(id) FROM {table}"
        # Without any row the first number is 1.
        sequence = "pg_get_serial_sequence(?, 'id')"
        self.rows(f"SELECT setval({sequence}, coalesce(({largest}), 1), ({largest}) IS NOT NULL)", (table,))

    def among(self, column: str, numbers: Collection[int]) -> tuple[str, object]:
        return f"{column} = ANY(?)", sorted(numbers)

    def elements(self, column: str) -> str:
        return f"json_array_elements_text({column}::json) AS element(value)"

    def member(self, column: str, name: str) -> tuple[str, object]:
        return f"coalesce(({column}::json -> ?::text)::text, 'null')", name

    def choose(self, run: int | None, rows: Callable[[], Iterable[tuple[int, int, bool]]]) -> None:
        source = iter(rows())
        # They come over this very line, so not while others go.
        while page := list(itertools.islice(source, _PAGE)):
            self.executemany("INSERT INTO choices VALUES (?, ?, ?)", [(run, task, place) for task, place, _ in page])

    def chosen(self, run: int | None, *, waiting: bool) -> str:  # noqa: ARG002 - the index of `tasks` has to do
        return f"(SELECT task, place FROM choices WHERE run = {int(run or 0)}) AS chosen"

    def wait_for_lock(self, seconds: float = PATIENCE) -> None:
        self._lock_timeout = seconds
        with self.told():
            self._settle()

    def close(self) -> None:
        self._raw.close()

    # The line

    def _settle(self) -> None:
        """The settings of a fresh connection."""
        path = composed.SQL("SET search_path TO {}").format(composed.Identifier(self._server.schema))
        self._raw.execute(path)
        # Whatever the server is set to: an intent must not be lost when its power goes.
        self._raw.execute("SET synchronous_commit TO on")
        # Zero would be for ever.
        milliseconds = max(1, round(self._lock_timeout * 1000))
        self._raw.execute(composed.SQL("SET lock_timeout TO {}").format(composed.Literal(milliseconds)))

    def _hold(self) -> None:
        """Takes the manifest for this connection alone, if it is to write. Raises `ManifestLocked`.

        The lock is the session's: the server lets go of it when that ends, however it does.
        """
        if self._read_only:
            return
        row = self._raw.execute("SELECT pg_try_advisory_lock(%s, %s)", lock_of(self._server)).fetchone()
        if row is None or not row[0]:
            raise ManifestLocked(f"another run holds {self.name}: {self._holder()}")

    def _still_ours(self) -> None:
        """Raises `ManifestLocked` if another run had the manifest while the line was gone, even if it has ended."""
        if self.run is not None:
            row = self._raw.execute("SELECT max(id) FROM runs").fetchone()
            if row is None or row[0] != self.run:
                raise ManifestLocked(f"another run has had {self.name} while the line to it was gone; run again")

    def _holder(self) -> str:
        table = composed.Identifier(self._server.schema, "runs")
        query = composed.SQL("SELECT pid, host, started_at FROM {} WHERE ended_at IS NULL ORDER BY id DESC LIMIT 1")
        with suppress(psycopg.Error):
            row = self._raw.execute(query.format(table)).fetchone()
            if row is not None:
                started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row[2]))
                return f"pid {row[0]} on {row[1]}, started {started}"
        return "it has only just started"

    def _is_lost(self) -> bool:
        return self._raw.closed or self._raw.broken

    def _was_committed(self, transaction: str) -> bool:
        while True:
            row = self._raw.execute("SELECT pg_xact_status(%s::text::xid8)", [transaction]).fetchone()
            if row is None or row[0] != "in progress":
                return row is not None and row[0] == "committed"
            # The server has not noticed yet that nobody is there any more.
            time.sleep(0.1)


def lock_of(server: Server) -> tuple[int, int]:
    """The two numbers of the advisory lock of whoever writes a manifest."""
    return _LOCK, zlib.crc32(server.schema.encode()) & 0x7FFF_FFFF


def is_held(server: Server) -> bool:
    """Whether a run holds the manifest right now."""
    connection = PostgresConnection(server, read_only=True)
    try:
        return bool(
            connection.rows(
                "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND classid = ? AND objid = ? AND objsubid = 2"
                " AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
                lock_of(server),
            )
        )
    finally:
        connection.close()


def is_there(server: Server) -> bool:
    """Whether there is a manifest. Raises `LineLost`, and `ManifestError` for what is none."""
    raw = _connect(server)
    try:
        return check_version(raw, server.schema, server.name, old=True) > 0
    except psycopg.Error as error:
        raise ManifestError(f"{server.name}: {error}") from error
    finally:
        raw.close()


_LOCK = 0x5EED_BA7C & 0x7FFF_FFFF
"""The first number of all advisory locks of this program."""


def _connect(server: Server) -> Raw:
    try:
        return psycopg.connect(
            server.url, autocommit=True, connect_timeout=CONNECT_TIMEOUT, application_name="seedream-batch",
            keepalives=1, keepalives_idle=10, keepalives_interval=5, keepalives_count=3, tcp_user_timeout=20_000,
        )  # fmt: skip
    except psycopg.OperationalError as error:
        text = str(error).strip().partition("\n")[0].removeprefix("connection failed: ")
        raise LineLost(f"{server.name}: {text}") from error
    except psycopg.Error as error:
        raise UsageError(f"{server.name}: {str(error).strip()}") from error


@lru_cache(maxsize=1024)
def _translated(sql: str) -> str:
    return sql.replace("%", "%%").replace("?", "%s")


def _clean(value: object) -> object:
    """A value as PostgreSQL can keep it: what a service says may have a NUL in it."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) and "\0" in value else value
