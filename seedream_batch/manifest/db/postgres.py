"""The manifest in a schema of a PostgreSQL database: one connection, re-established when it is lost."""

from __future__ import annotations

import itertools
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

import psycopg
from psycopg import sql as composed
from psycopg.pq import TransactionStatus

from seedream_batch.errors import Collision, ConnectionLost, Fenced, ManifestError, ManifestLocked, StorageError
from seedream_batch.manifest.db import postgres_locks as locks
from seedream_batch.manifest.db.connection import CLOCK, LEASE, PATIENCE, Connection, Cursor
from seedream_batch.manifest.db.dialect import PostgresDialect
from seedream_batch.manifest.db.postgres_schema import VERSION, Raw, check_version, migrate
from seedream_batch.manifest.db.postgres_session import connected, first_line_of
from seedream_batch.manifest.db.postgres_workers import PostgresWorkers
from seedream_batch.model.locations import Server

# Its warnings about lost connections would go to standard error, where the events are printed.
logging.getLogger("psycopg").setLevel(logging.CRITICAL)

RECONNECT_FOR = 300.0
"""Seconds that a run waits for a lost database before it gives up."""

_FULL = "53"
"""Class of PostgreSQL's errors for exhausted resources: disk, memory, connections."""

_LOST = ("08", "57P")
"""Classes of errors for lost connections, and for servers that stop or start."""

_COLLISIONS = ("40001", "40P01", "55P03")
"""Errors of a transaction that the server aborted because of another one, or that waited too long."""

STOPPED = 3.0
"""Seconds that a worker may be idle in a transaction: a stopped process must not block the others."""

_ALL_TOTALS = """
(SELECT sum(reserved_images)::bigint AS reserved_images, sum(reserved)::bigint AS reserved,
sum(images)::bigint AS images, sum(cost)::bigint AS cost
FROM (SELECT reserved_images, reserved, images, cost FROM totals
UNION ALL SELECT reserved_images, reserved, images, cost FROM workers) AS parts) AS totals
"""

_PAGE = 2000
"""Rows of a long result that are fetched together."""


class PostgresConnection(Connection):
    """A connection to a manifest on a server. Raises `ManifestError`, `StorageError` and `ConnectionLost`.

    Opened for writing, the schema is created if necessary, and migrated to the newest version.
    """

    # READ WRITE, because some reads need a temporary table.
    snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ WRITE"
    in_process = False
    dialect = PostgresDialect()
    errors = psycopg.Error
    guards = psycopg.IntegrityError
    has_workers = True
    totals = _ALL_TOTALS

    def __init__(self, server: Server, *, read_only: bool = False, shared: bool = False) -> None:
        self._server = server
        self.shared = shared
        self._read_only = read_only
        self._aborted = threading.Event()
        self._changes = self._changes_before = 0
        self._named = 0
        self._backend: locks.Backend = (0, None)
        self._line = 0
        """The number of this connection among all that ever wrote the manifest."""
        self._unconfirmed = ""
        """The mark of a transaction whose commit was not answered."""
        self._lost_at: float | None = None
        """When the connection was lost, until the next commit."""
        self._losses = 0
        self._workers = PostgresWorkers(server, lambda: self._raw, self.translated_errors)
        self._refusal: ManifestLocked | None = None
        """Why this connection must no longer write."""
        super().__init__(server.name)
        self._raw = connected(server)
        self.sql = self
        try:
            with self.translated_errors():
                version = check_version(self._raw, server.schema, self.name, old=not read_only)
                if read_only and version < VERSION:
                    # A writing connection migrates it; that is refused while a run of an older program is active.
                    PostgresConnection(server).close()
                if not read_only:
                    self._hold(self._raw)
                    migrate(self._raw, server.schema, self.name)
                self._apply_settings(self._raw)
                if not read_only:
                    self._begin_session()
        except BaseException:
            self._raw.close()
            raise

    # Statements

    def execute(self, sql: str, values: Sequence[object] = (), /) -> Cursor:
        cursor = self._raw.execute(_translated(sql), [_clean(value) for value in values])
        if not (cursor.statusmessage or "").startswith("SELECT"):
            self._changes += max(cursor.rowcount, 0)
        return cursor

    def executemany(self, sql: str, values: Iterable[Sequence[object]], /) -> Cursor:
        cursor = self._raw.cursor()
        cursor.executemany(_translated(sql), ([_clean(value) for value in row] for row in values))
        self._changes += max(cursor.rowcount, 0)
        return cursor

    def each(self, sql: str, values: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        self._named += 1
        with (
            self.translated_errors(),
            self._only_reading(),
            self._raw.cursor(name=f"each_{self._named}", withhold=not self.in_transaction) as cursor,
        ):
            cursor.itersize = _PAGE
            cursor.execute(_translated(sql), [_clean(value) for value in values])
            yield from cursor

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self.translated_errors(), self._only_reading():
            return self.execute(sql, values).fetchall()

    @contextmanager
    def _only_reading(self) -> Iterator[None]:
        """Make the server refuse changes by a read-only connection.

        Set per transaction rather than per session: a pool could give the session to another program.
        """
        if not self._read_only or self.in_transaction:
            yield
            return
        self._raw.execute("BEGIN READ ONLY")
        try:
            yield
        finally:
            self._raw.execute("ROLLBACK")

    def begin_transaction(self) -> None:
        if self.worker is None:
            self._raw.execute(self.begin)
            return
        try:
            counts = locks.begin_as_worker(self._raw, self._server, self.worker)
        except psycopg.Error:
            if self.in_transaction:
                self._raw.execute("ROLLBACK")
            raise
        if not counts:
            self._raw.execute("ROLLBACK")
            raise self._fenced()

    def join(self, run: int, account: int | None) -> None:
        # Lock before the row becomes visible: others would expire a worker without a session.
        locks.hold_worker(self._raw, self._server, run)
        # Start its session row here, and delete those of earlier exclusive commands.
        self._raw.execute("DELETE FROM lines WHERE id NOT IN (SELECT line FROM workers)")
        self._new_session()
        self._raw.execute(
            f"INSERT INTO workers (run, line, until, account) VALUES (%s, %s, {CLOCK} + %s, %s)",
            [run, self._line, LEASE, account],
        )
        self.worker = run

    @property
    def workers(self) -> PostgresWorkers:
        return self._workers

    def commit(self) -> None:
        if self._changes != self._changes_before:
            # Use a random mark, not the transaction id, which the server may reuse after a crash.
            mark = secrets.token_hex(8)
            self._raw.execute("UPDATE lines SET mark = %s WHERE id = %s", [mark, self._line])
            # Until the commit is answered, only the mark tells whether it is durable.
            self._unconfirmed = mark
        try:
            self._raw.execute("COMMIT")
        except psycopg.Error as error:
            if not isinstance(self.translate_error(error), ConnectionLost):
                # The server answered: it was not committed.
                self._unconfirmed = ""
            raise
        self._unconfirmed = ""
        self._changes_before = self._changes
        self._lost_at, self._losses = None, 0

    def reconnect(self) -> bool:
        """Reconnect, and return whether the commit during which the connection was lost is durable.

        Raises `ConnectionLost` if the server does not come back in time, and `ManifestLocked`, from then on every time,
        if somebody else used the manifest meanwhile.
        """
        if self._refusal is not None:
            raise self._refusal
        if self._lost_at is None:
            self._lost_at = time.monotonic()
        with suppress(psycopg.Error):
            self._raw.close()
        while True:
            # Back off if the last connection did not last until a commit.
            pause = min(0.05 * 2**self._losses, 5.0) if self._losses else 0.0
            self._losses += 1
            if self._aborted.wait(pause) or time.monotonic() - self._lost_at > RECONNECT_FOR:
                raise ConnectionLost(f"{self.name} does not answer")
            try:
                return self._resume(connected(self._server))
            except ManifestLocked as error:
                self._refusal = error
                raise
            except (ConnectionLost, psycopg.Error):
                continue

    def _resume(self, raw: Raw) -> bool:
        """Continue on a new connection once it has the locks; return whether the unclear commit is durable."""
        try:
            self._apply_settings(raw)
            self._hold(raw, own=self._backend)
            self._workers.retake_startup_lock(raw)
            # After that lock: whoever has expired this worker must not see it reappear.
            if self.worker is not None:
                locks.hold_worker(raw, self._server, self.worker)
            # The previous session has ended, so its last commit is either visible now or never will be.
            own = "WHERE id = %s" if self.shared else "WHERE id >= %s"
            newest = raw.execute(f"SELECT id, mark FROM lines {own} ORDER BY id DESC LIMIT 1", [self._line]).fetchone()
        except BaseException:
            raw.close()
            raise
        if newest is None or newest[0] != self._line:
            if self.worker is not None:
                # It is no longer a worker, but the connection can still be used to report what it knows.
                self._switch_to(raw)
                raise self._fenced()
            raw.close()
            raise ManifestLocked(f"another run used {self.name} while the connection to it was lost; run again")
        self._switch_to(raw)
        durable = self._unconfirmed != "" and newest[1] == self._unconfirmed
        self._unconfirmed = ""
        return durable

    def _switch_to(self, raw: Raw) -> None:
        self._raw = raw
        self._backend = locks.backend(raw)
        self.in_part = self.broken = False
        self._changes_before = self._changes

    def _fenced(self) -> Fenced:
        return Fenced(
            f"{self.name}: this worker sent no heartbeat for too long, so other workers took over its tasks; run again"
        )

    def check_in_place(self) -> None:
        pass  # the server answers for its files

    def abort_retries(self) -> None:
        self._aborted.set()

    # The PostgreSQL dialect

    @property
    def in_transaction(self) -> bool:
        return self._raw.info.transaction_status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}

    @property
    def changes(self) -> int:
        return self._changes

    def translate_error(self, error: Exception) -> Exception:
        state = getattr(error, "sqlstate", None) or ""
        text = first_line_of(error) or type(error).__name__
        kind: type[Exception] = StorageError if state.startswith(_FULL) else ManifestError
        lost = self._raw.closed or self._raw.broken
        if lost or state.startswith(_LOST) or (not state and isinstance(error, psycopg.OperationalError)):
            kind = ConnectionLost
        elif state in _COLLISIONS:
            kind = Collision
        return kind(f"{self.name}: {text}")

    def columns(self, table: str) -> tuple[str, ...]:
        # Ownership by workers is not copied to another manifest.
        return tuple(
            row[0]
            for row in self.rows(
                "SELECT column_name FROM information_schema.columns WHERE table_schema = ? AND table_name = ?"
                " AND (table_name, column_name) != ('tasks', 'worker') ORDER BY ordinal_position",
                (self._server.schema, table),
            )
        )

    def continue_numbering(self, table: str) -> None:
        largest = f"SELECT max(id) FROM {table}"
        # In an empty table the first number is 1.
        sequence = "pg_get_serial_sequence(?, 'id')"
        self.rows(f"SELECT setval({sequence}, coalesce(({largest}), 1), ({largest}) IS NOT NULL)", (table,))

    def store_selection(self, run: int | None, rows: Callable[[], Iterable[tuple[int, int, bool]]]) -> None:
        # Delete the selections of ended runs.
        self.execute("DELETE FROM choices WHERE run NOT IN (SELECT run FROM workers)")
        source = iter(rows())
        # The rows come over this same connection, so read a page before writing it.
        while page := list(itertools.islice(source, _PAGE)):
            self.executemany("INSERT INTO choices VALUES (?, ?, ?)", [(run, task, place) for task, place, _ in page])

    def selection(self, run: int | None, *, waiting: bool) -> str:  # noqa: ARG002 - the index of `tasks` has to do
        return f"(SELECT task, place FROM choices WHERE run = {int(run or 0)}) AS chosen"

    def allow_pauses(self) -> None:
        # Keep a limit: a process stopped meanwhile would block the start of others forever.
        self._raw.execute(f"SET LOCAL idle_in_transaction_session_timeout TO {round(LEASE * 1000)}")

    def wait_for_lock(self, seconds: float = PATIENCE) -> None:
        pass  # statements run on a thread, which may wait for the lock timeout of `_apply_settings`

    def close(self) -> None:
        # Release locks explicitly: ending the session takes the server a moment, and the next command may be near.
        with suppress(psycopg.Error):
            self._raw.execute("SELECT pg_advisory_unlock_all()")
        self._raw.close()

    # The session

    def _apply_settings(self, raw: Raw) -> None:
        """Apply the settings of a new connection, whatever the defaults of server and user are."""
        raw.execute(composed.SQL("SET search_path TO {}").format(composed.Identifier(self._server.schema)))
        # An intent must survive a power failure of the server.
        raw.execute("SET synchronous_commit TO on")
        raw.execute("SET statement_timeout TO 0")
        raw.execute(f"SET lock_timeout TO {round(PATIENCE * 1000)}")
        # Otherwise a server that does not notice a lost connection keeps its locks for hours.
        raw.execute("SET tcp_keepalives_idle TO 30; SET tcp_keepalives_interval TO 5; SET tcp_keepalives_count TO 4")
        if self.shared:
            raw.execute(f"SET idle_in_transaction_session_timeout TO {round(STOPPED * 1000)}")

    def _begin_session(self) -> None:
        """Take a number, by which a later connection sees whether anybody else has written."""
        if not self.shared:
            self._raw.execute("DELETE FROM lines")
            self._new_session()
        self._backend = locks.backend(self._raw)

    def _new_session(self) -> None:
        row = self._raw.execute("INSERT INTO lines DEFAULT VALUES RETURNING id").fetchone()
        self._line = 0 if row is None else int(row[0])

    def _hold(self, raw: Raw, *, own: locks.Backend | None = None) -> None:
        locks.hold(raw, self._server, shared=self.shared, pause=self._aborted.wait, own=own)


@lru_cache(maxsize=1024)
def _translated(sql: str) -> str:
    return sql.replace("%", "%%").replace("?", "%s")


def _clean(value: object) -> object:
    """Return a value that PostgreSQL can store: texts of a service may contain NUL."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) and "\0" in value else value
