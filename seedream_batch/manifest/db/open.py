"""Connections to a manifest, wherever it is."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

from seedream_batch.errors import UsageError, telling
from seedream_batch.manifest.db.connection import Connection
from seedream_batch.manifest.db.sqlite import SqliteConnection, is_blank
from seedream_batch.model.locations import Place, Server


def connect(place: Place, *, read_only: bool = False, shared: bool = False) -> Connection:
    """A connection to a manifest; opened for writing it is made if need be.

    `shared` is for a run that works on it beside others, which only a server lets it do.

    Raises `ManifestError` for what is no manifest, or one of another version, `StorageError`, and `UsageError` when a
    library is missing.
    """
    if isinstance(place, Path):
        return SqliteConnection(place, read_only=read_only)
    connection: Connection = _optional("postgres").PostgresConnection(place, read_only=read_only, shared=shared)
    return connection


def exists(place: Place) -> bool:
    """Whether there is a manifest, which an empty file is not; raises what `connect` does when that cannot be told."""
    if isinstance(place, Path):
        with telling(place):
            there = place.exists()
        return there and not is_blank(place)
    return bool(_optional("postgres_session").is_there(place))


def is_held(place: Server) -> bool:
    """Whether a run holds a manifest on a server right now."""
    return bool(_optional("postgres_session").is_held(place))


def _optional(name: str) -> ModuleType:
    """A module that needs the extra, and is slow to import."""
    try:
        return import_module(f"seedream_batch.manifest.db.{name}")
    except ImportError as error:
        raise UsageError(
            "a manifest on PostgreSQL needs psycopg; install it with: pip install 'seedream-batch[postgres]'"
            f" ({str(error).partition(chr(10))[0]})"
        ) from None
