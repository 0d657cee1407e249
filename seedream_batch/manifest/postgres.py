"""The manifest in a schema of a PostgreSQL database: one connection, which is made anew when the line breaks."""

from __future__ import annotations

import itertools
import logging
import secrets
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import psycopg
from psycopg import sql as composed
from psycopg.pq import TransactionStatus

from seedream_batch.errors import LineLost, ManifestBusy, ManifestError, ManifestLocked, StorageError, UsageError
from seedream_batch.manifest.connection import PATIENCE, Connection, Cursor
from seedream_batch.manifest.postgres_schema import Raw, check_version, migrate
from seedream_batch.model.place import Server

# What it has to say of lines that break goes to standard error, where events are.
logging.getLogger("psycopg").setLevel(logging.CRITICAL)

LINE_PATIENCE = 300.0
"""Seconds in which a database that is gone may come back before a run gives up."""

CONNECT_TIMEOUT = 10
"""Seconds for one try to connect."""

_FULL = "53"
"""The class of PostgreSQL's errors for resources that are used up: the disk, memory, connections."""

_GONE = ("08", "57P")
"""Those of a line that is gone, and of a server that ends or begins."""

LOCK_PATIENCE = 1.0
"""Seconds in which the lock is asked for."""

_END_OWN = """
SELECT pg_terminate_backend(activity.pid) FROM pg_locks AS held JOIN pg_stat_activity AS activity USING (pid)
WHERE held.locktype = 'advisory' AND held.classid = %s AND held.objid = %s AND held.objsubid = 2 AND held.granted
AND activity.pid = %s AND activity.backend_start = %s
"""

Backend = tuple[int, object]
"""A session of the server: its process, and when that began."""

_PAGE = 2000
"""Rows of a long answer that are fetched together."""


class PostgresConnection(Connection):
    """A connection to a manifest on a server. Raises `ManifestError`, `StorageError`, and `LineLost` without a server.

    Opened for writing, the schema is made if need be, and brought to the newest version.
    """

    # Reading needs a temporary table at times.
    snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ WRITE"
    quick = False
    errors = psycopg.Error
    guards = psycopg.IntegrityError

    def __init__(self, server: Server, *, read_only: bool = False) -> None:
        self._server = server
        self._read_only = read_only
        self._hurried = threading.Event()
        self._changes = self._changes_before = 0
        self._named = 0
        self._backend: Backend = (0, None)
        self._line = 0
        """The number of this connection among all that ever wrote the manifest."""
        self._unclear = ""
        """The mark of a transaction whose commit was not answered."""
        self._lost_at: float | None = None
        """When the line was lost, until something was committed again."""
        self._losses = 0
        self._barred: ManifestLocked | None = None
        """Why this connection must not write any more."""
        super().__init__(server.name)
        self._raw = _connect(server)
        self.sql = self
        try:
            with self.told():
                check_version(self._raw, server.schema, self.name, old=not read_only)
                if not read_only:
                    self._hold(self._raw)
                    migrate(self._raw, server.schema, self.name)
                self._settle(self._raw)
                if not read_only:
                    self._begin_line()
        except BaseException:
            self._raw.close()
            raise

    # Statements

    def execute(self, sql: str, values: Sequence[object] = (), /) -> Cursor:
        """Carries out one statement."""
        cursor = self._raw.execute(_translated(sql), [_clean(value) for value in values])
        if not (cursor.statusmessage or "").startswith("SELECT"):
            self._changes += max(cursor.rowcount, 0)
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
        if self._changes != self._changes_before:
            # Not asked by the number of the transaction: after a crash the server gives the same one to another.
            mark = secrets.token_hex(8)
            self._raw.execute("UPDATE lines SET mark = %s WHERE id = %s", [mark, self._line])
            # From here on, until it is answered, only the mark tells what became of it.
            self._unclear = mark
        try:
            self._raw.execute("COMMIT")
        except psycopg.Error as error:
            if not isinstance(self.told_of(error), LineLost):
                # It was answered: no.
                self._unclear = ""
            raise
        self._unclear = ""
        self._changes_before = self._changes
        self._lost_at, self._losses = None, 0

    def again(self) -> bool:
        """Connects anew; whether what was being committed when the line was lost is durable.

        Raises `LineLost` when the server does not come back in time, and `ManifestLocked`, from then on every time,
        when somebody else has had the manifest meanwhile.
        """
        if self._barred is not None:
            raise self._barred
        if self._lost_at is None:
            self._lost_at = time.monotonic()
        with suppress(psycopg.Error):
            self._raw.close()
        while True:
            # Not at once, if it has not held: a line that comes and goes is no line.
            pause = min(0.05 * 2**self._losses, 5.0) if self._losses else 0.0
            self._losses += 1
            if self._hurried.wait(pause) or time.monotonic() - self._lost_at > LINE_PATIENCE:
                raise LineLost(f"{self.name} does not answer")
            try:
                return self._take_up(_connect(self._server))
            except ManifestLocked as error:
                self._barred = error
                raise
            except (LineLost, psycopg.Error):
                continue

    def _take_up(self, raw: Raw) -> bool:
        """Goes on with a fresh line, once it has the lock; whether what was unclear is durable."""
        try:
            self._settle(raw)
            self._hold(raw, own=self._backend)
            # Whoever has the lock knows that the session before it has ended, with all it was about to commit.
            newest = raw.execute("SELECT id, mark FROM lines ORDER BY id DESC LIMIT 1").fetchone()
        except BaseException:
            raw.close()
            raise
        if newest is None or newest[0] != self._line:
            raw.close()
            raise ManifestLocked(f"another run has had {self.name} while the line to it was gone; run again")
        self._raw = raw
        self._backend = _backend(raw)
        self.in_part = self.broken = False
        self._changes_before = self._changes
        durable = self._unclear != "" and newest[1] == self._unclear
        self._unclear = ""
        return durable

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
        text = _line_of(error) or type(error).__name__
        kind: type[Exception] = StorageError if state.startswith(_FULL) else ManifestError
        lost = self._raw.closed or self._raw.broken
        if lost or state.startswith(_GONE) or (not state and isinstance(error, psycopg.OperationalError)):
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
        return f"json_array_elements_text({_without_nul(column)}::json) AS element(value)"

    def member(self, column: str, name: str) -> tuple[str, object]:
        return f"coalesce(({_without_nul(column)}::json -> ?::text)::text, 'null')", name

    def first_of(self, column: str) -> str:
        return f"(array_agg({column} ORDER BY ordinal))[1]"

    def choose(self, run: int | None, rows: Callable[[], Iterable[tuple[int, int, bool]]]) -> None:
        # Those before this run are over.
        self.execute("DELETE FROM choices")
        source = iter(rows())
        # They come over this very line, so not while others go.
        while page := list(itertools.islice(source, _PAGE)):
            self.executemany("INSERT INTO choices VALUES (?, ?, ?)", [(run, task, place) for task, place, _ in page])

    def chosen(self, run: int | None, *, waiting: bool) -> str:  # noqa: ARG002 - the index of `tasks` has to do
        return f"(SELECT task, place FROM choices WHERE run = {int(run or 0)}) AS chosen"

    def wait_for_lock(self, seconds: float = PATIENCE) -> None:
        pass  # its statements have a thread, which may wait as long as `_settle` says

    def close(self) -> None:
        # The end of a session takes the server a moment, and the next command may come at once.
        with suppress(psycopg.Error):
            self._raw.execute("SELECT pg_advisory_unlock_all()")
        self._raw.close()

    # The line

    def _settle(self, raw: Raw) -> None:
        """The settings of a fresh connection, whatever the server and the user are set to."""
        raw.execute(composed.SQL("SET search_path TO {}").format(composed.Identifier(self._server.schema)))
        # An intent must not be lost when the server's power goes.
        raw.execute("SET synchronous_commit TO on")
        raw.execute("SET statement_timeout TO 0")
        raw.execute(composed.SQL("SET lock_timeout TO {}").format(composed.Literal(round(PATIENCE * 1000))))
        # A server that has heard nothing of the end of a line keeps its lock for hours otherwise.
        raw.execute("SET tcp_keepalives_idle TO 30; SET tcp_keepalives_interval TO 5; SET tcp_keepalives_count TO 4")
        if self._read_only:
            raw.execute("SET default_transaction_read_only TO on")

    def _begin_line(self) -> None:
        """Takes a number, by which a later line of this connection sees whether anybody else has written."""
        self._raw.execute("DELETE FROM lines")
        row = self._raw.execute("INSERT INTO lines DEFAULT VALUES RETURNING id").fetchone()
        self._line = 0 if row is None else int(row[0])
        self._backend = _backend(self._raw)

    def _hold(self, raw: Raw, *, own: Backend | None = None) -> None:
        """Takes the manifest for a line alone. Raises `ManifestLocked`.

        The lock is the session's: the server lets go of it when that ends, however it does. `own` is a session of this
        connection of whose end the server may not have heard yet.
        """
        # A run that ended a moment ago, or was killed, may still be there for the server.
        begun = time.monotonic()
        deadline = begun + LOCK_PATIENCE
        while True:
            row = raw.execute("SELECT pg_try_advisory_lock(%s, %s)", lock_of(self._server)).fetchone()
            if row is not None and row[0]:
                return
            if own is not None and raw.execute(_END_OWN, [*lock_of(self._server), *own]).fetchall():
                deadline = min(time.monotonic(), begun + 9 * LOCK_PATIENCE) + LOCK_PATIENCE
            if time.monotonic() > deadline:
                raise ManifestLocked(f"another run holds {self.name}: {self._holder(raw)}")
            self._hurried.wait(LOCK_PATIENCE / 20)

    def _holder(self, raw: Raw) -> str:
        table = composed.Identifier(self._server.schema, "runs")
        query = composed.SQL("SELECT pid, host, started_at FROM {} WHERE ended_at IS NULL ORDER BY id DESC LIMIT 1")
        with suppress(psycopg.Error):
            row = raw.execute(query.format(table)).fetchone()
            if row is not None:
                started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row[2]))
                return f"pid {row[0]} on {row[1]}, started {started}"
        return "it has only just started"


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
        raise ManifestError(f"{server.name}: {_line_of(error)}") from error
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
        # Without where it comes from: that has the URL in it.
        raise LineLost(f"{server.name}: {server.without_secrets(_line_of(error))}") from None
    except psycopg.Error as error:
        raise UsageError(f"{server.name}: {server.without_secrets(_line_of(error))}") from None


def _line_of(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].removeprefix("connection failed: ")


def _backend(raw: Raw) -> Backend:
    row = raw.execute("SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()").fetchone()
    return (0, None) if row is None else (row[0], row[1])


def _without_nul(column: str) -> str:
    """A column of JSON without what PostgreSQL's JSON cannot have; only to be looked at."""
    return f"replace({column}, '\\u0000', '\\ufffd')"


@lru_cache(maxsize=1024)
def _translated(sql: str) -> str:
    return sql.replace("%", "%%").replace("?", "%s")


def _clean(value: object) -> object:
    """A value as PostgreSQL can keep it: what a service says may have a NUL in it."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) and "\0" in value else value
