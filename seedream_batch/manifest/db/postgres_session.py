"""Opens connections to a PostgreSQL server, and probes: is there a manifest, and who holds it?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from seedream_batch.errors import ConnectionLost, ManifestError, UsageError
from seedream_batch.manifest.db import postgres_locks as locks
from seedream_batch.manifest.db.postgres_schema import Raw, check_version
from seedream_batch.model.locations import Server

CONNECT_TIMEOUT = 10
"""Seconds for one attempt to connect."""


def connected(server: Server) -> Raw:
    """Connect to a server. Raises `ConnectionLost`, and `UsageError` for an unusable URL."""
    try:
        return psycopg.connect(
            server.url, autocommit=True, connect_timeout=CONNECT_TIMEOUT, application_name="seedream-batch",
            keepalives=1, keepalives_idle=10, keepalives_interval=5, keepalives_count=3, tcp_user_timeout=20_000,
        )  # fmt: skip
    except psycopg.OperationalError as error:
        # Drop the cause: it contains the URL.
        raise ConnectionLost(f"{server.name}: {server.without_secrets(first_line_of(error))}") from None
    except psycopg.Error as error:
        raise UsageError(f"{server.name}: {server.without_secrets(first_line_of(error))}") from None


def is_held(server: Server) -> bool:
    """Return whether a run holds the manifest right now."""
    with _probe(server) as raw:
        return locks.is_held(raw, server)


def is_there(server: Server) -> bool:
    """Return whether there is a manifest. Raises `ConnectionLost`, and `ManifestError` for something else."""
    with _probe(server) as raw:
        return check_version(raw, server.schema, server.name, old=True) > 0


@contextmanager
def _probe(server: Server) -> Iterator[Raw]:
    raw = connected(server)
    try:
        yield raw
    except psycopg.Error as error:
        raise ManifestError(f"{server.name}: {first_line_of(error)}") from error
    finally:
        raw.close()


def first_line_of(error: Exception) -> str:
    """Return the first line of a driver's message."""
    return str(error).strip().partition("\n")[0].removeprefix("connection failed: ")
