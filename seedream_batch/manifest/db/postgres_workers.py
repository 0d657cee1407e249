"""The sessions of the workers of a manifest on a server, and the lock under which they start."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from seedream_batch.errors import ManifestLocked
from seedream_batch.manifest.db.postgres_locks import MANIFEST, ask, key_of
from seedream_batch.manifest.db.postgres_schema import Raw
from seedream_batch.model.locations import Server

_STARTUP = MANIFEST + 1
"""First key of the startup lock, held while a manifest is synchronised with its job."""

_SESSIONS = """
FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND classid::bigint = %s
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class PostgresWorkers:
    """What one connection sees of all workers, and does to them."""

    def __init__(
        self, server: Server, raw: Callable[[], Raw], translated_errors: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._server = server
        self._key = key_of(server)
        self._raw = raw
        self._translated_errors = translated_errors
        self.holds_startup_lock = False

    def present(self) -> list[int]:
        """Return the workers that have a session."""
        with self._translated_errors():
            return [row[0] for row in self._raw().execute("SELECT objid::bigint" + _SESSIONS, [self._key]).fetchall()]

    def may_expire(self, run: int) -> bool:
        """Return whether a worker is in no transaction; it can then begin none before this one ends."""
        return ask(self._raw(), "SELECT pg_try_advisory_xact_lock(%s, %s)", [self._key, run])

    def end_session(self, run: int) -> None:
        """Terminate the session that holds a worker's lock, if it exists and belongs to this user."""
        own = " AND objid::bigint = %s AND pid IN (SELECT pid FROM pg_stat_activity WHERE usename = current_user)"
        self._raw().execute("SELECT pg_terminate_backend(pid)" + _SESSIONS + own, [self._key, run])

    def lock_startup(self, wait: Callable[[], None]) -> None:
        """Keep other workers from joining; calls `wait` until the present holder has released the lock."""
        with self._translated_errors():
            while not self._try_startup_lock(self._raw()):
                wait()
        self.holds_startup_lock = True

    def retake_startup_lock(self, raw: Raw) -> None:
        """Take the startup lock on a new connection if it was held on the lost one. Raises `ManifestLocked`."""
        if self.holds_startup_lock and not self._try_startup_lock(raw):
            name = self._server.name
            raise ManifestLocked(f"another worker started on {name} while the connection to it was lost; run again")

    def unlock_startup(self) -> None:
        """Let other workers join."""
        with self._translated_errors():
            self._raw().execute("SELECT pg_advisory_unlock(%s, %s)", [_STARTUP, self._key])
        self.holds_startup_lock = False

    def startup_lock_holder(self) -> tuple[int, bool] | None:
        """Return the session that holds the startup lock, and whether it is a worker's, which has a lease."""
        with self._translated_errors():
            row = (
                self._raw()
                .execute(
                    "SELECT pid, EXISTS (SELECT 1 FROM pg_locks AS own WHERE own.pid = starting.pid AND own.granted"
                    " AND own.locktype = 'advisory' AND own.objsubid = 1 AND own.database = starting.database"
                    " AND own.classid::bigint = %s AND own.objid::bigint IN (SELECT run FROM workers))"
                    " FROM pg_locks AS starting WHERE locktype = 'advisory' AND granted AND objsubid = 2"
                    " AND classid::bigint = %s AND objid::bigint = %s"
                    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
                    [self._key, _STARTUP, self._key],
                )
                .fetchone()
            )
        return None if row is None else (row[0], row[1])

    def _try_startup_lock(self, raw: Raw) -> bool:
        return ask(raw, "SELECT pg_try_advisory_lock(%s, %s)", [_STARTUP, self._key])
