"""Advisory locks on a manifest on a server, exclusive or shared by workers; they end with their sessions."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import sql as composed

from seedream_batch.errors import ManifestLocked
from seedream_batch.manifest.db.postgres_schema import Raw
from seedream_batch.model.locations import Server

PATIENCE = 1.0
"""Seconds for which a lock is requested."""

_STEP = PATIENCE / 20

MANIFEST = 0x5EED_BA7C & 0x7FFF_FFFF
"""First key of the locks of whoever writes a manifest."""

_END_OWN = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND backend_start = %s
"""

Backend = tuple[int, object]
"""A session of the server: its process id and start time."""


def key_of(server: Server) -> int:
    """Return the second key of the locks of a manifest."""
    return zlib.crc32(server.schema.encode()) & 0x7FFF_FFFF


def hold(
    raw: Raw, server: Server, *, shared: bool, pause: Callable[[float], object], own: Backend | None = None
) -> None:
    """Lock a manifest for a session, exclusively or `shared` with other workers. Raises `ManifestLocked`.

    The lock ends with the session, however that ends. `own` is an earlier session of the same connection whose end the
    server may not have noticed; it has ended when this returns.
    """
    # The server may not have noticed yet that an earlier run has ended or was killed.
    begun = time.monotonic()
    deadline = begun + PATIENCE
    lock = "SELECT pg_try_advisory_lock_shared(%s, %s)" if shared else "SELECT pg_try_advisory_lock(%s, %s)"
    while True:
        ending = own is not None and bool(raw.execute(_END_OWN, own).fetchall())
        if not ending and ask(raw, lock, [MANIFEST, key_of(server)]):
            return
        if ending:
            deadline = min(time.monotonic(), begun + 9 * PATIENCE) + PATIENCE
        if time.monotonic() > deadline:
            raise ManifestLocked(f"another run is using {server.name} ({_holder(raw, server)}); wait until it ends")
        pause(_STEP)


def hold_worker(raw: Raw, server: Server, run: int) -> None:
    """Take the lock by which others see that a worker's session exists."""
    raw.execute("SELECT pg_advisory_lock(%s)", [key_of(server) << 32 | run])


def begin_as_worker(raw: Raw, server: Server, run: int) -> bool:
    """Begin a transaction during which the worker cannot be expired; return whether it still exists.

    Locking the row would also work, but turn every transaction into a write. Sends one message, as it is needed often.
    """
    cursor = raw.execute(
        f"BEGIN; SELECT pg_advisory_xact_lock_shared({key_of(server)}, {int(run)});"
        f" SELECT EXISTS (SELECT 1 FROM workers WHERE run = {int(run)})"
    )
    while cursor.nextset():
        pass
    row = cursor.fetchone()
    return row is not None and bool(row[0])


def is_held(raw: Raw, server: Server) -> bool:
    """Return whether anybody holds the manifest right now."""
    return ask(
        raw,
        "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objid = %s"
        " AND objsubid = 2 AND granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))",
        [MANIFEST, key_of(server)],
    )


def backend(raw: Raw) -> Backend:
    row = raw.execute("SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()").fetchone()
    return (0, None) if row is None else (row[0], row[1])


def ask(raw: Raw, query: str, values: list[Any]) -> bool:
    row = raw.execute(query, values).fetchone()
    return row is not None and bool(row[0])


def _holder(raw: Raw, server: Server) -> str:
    table = composed.Identifier(server.schema, "runs")
    query = composed.SQL("SELECT pid, host, started_at FROM {} WHERE ended_at IS NULL ORDER BY id DESC LIMIT 1")
    with suppress(psycopg.Error):
        row = raw.execute(query.format(table)).fetchone()
        if row is not None:
            started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row[2]))
            return f"pid {row[0]} on {row[1]}, started {started}"
    return "it has just started"
