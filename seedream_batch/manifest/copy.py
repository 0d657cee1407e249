"""Moves a manifest: copies everything to another place, and marks the old one as no longer used."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from seedream_batch.errors import ManifestError, StorageError, UsageError
from seedream_batch.manifest.db.connection import marks
from seedream_batch.manifest.db.open import exists
from seedream_batch.manifest.facts import MOVED_TO
from seedream_batch.manifest.manifest import Manifest
from seedream_batch.manifest.run_lock import run_lock
from seedream_batch.model.locations import Place, name_of

TABLES = ("facts", "runs", "tasks", "attempts", "images", "uploads", "prices", "charges", "totals", "answers", "events")
"""The tables of a manifest; each comes after those it refers to."""

_PAGE = 500
"""Rows that are copied together."""

_NUMBERED = ("runs", "tasks", "answers", "events")
"""Tables whose rows the database numbers."""


def copy_manifest(source: Place, target: Place) -> int:
    """Move a manifest to a place where there is none, or an empty one; return the number of tasks.

    The old manifest is marked before anything is copied, so that no run uses it any more: otherwise two runs could both
    buy what is planned. The new one gets everything or nothing. If the copy fails, the mark is removed; an interrupted
    copy is resumed by the same call.

    Raises `UsageError`, `ManifestLocked` if a run holds one of the two, `ManifestError` and `StorageError`.
    """
    if source == target:
        raise UsageError(f"FROM and TO are the same manifest: {name_of(source)}")
    if isinstance(source, Path) and isinstance(target, Path) and source.resolve().parent == target.resolve().parent:
        raise UsageError(f"{name_of(source)} is in the same folder as {target.name}; use a separate folder")
    if not exists(source):
        raise UsageError(f"no manifest found at {name_of(source)}")
    with _open(source) as old, _open(target) as new:
        moved_to = old.facts.get(MOVED_TO)
        if moved_to not in {"", name_of(target)}:
            raise UsageError(f"{name_of(source)} was moved to {moved_to}; copy that one")
        if not new.is_empty():
            if moved_to and new.id == old.id:
                return _size(new)
            raise UsageError(f"{name_of(target)} already has tasks; name a new manifest as TO")
        old.facts.set({MOVED_TO: name_of(target)})
        try:
            with new.group():
                for table in TABLES:
                    copy_table(old, new, table)
                for table in _NUMBERED:
                    new.connection.continue_numbering(table)
                # The old one may itself have been moved from the new place, and then has a mark.
                new.facts.set({MOVED_TO: ""})
        except Exception:
            # The mark stays unless it is certain that nothing was copied.
            with suppress(StorageError, ManifestError):
                if new.is_empty():
                    old.facts.set({MOVED_TO: ""})
            raise
        return _size(new)


def copy_table(old: Manifest, new: Manifest, table: str) -> None:
    """Replace the contents of a table by those of another manifest, as part of a transaction."""
    columns = old.connection.columns(table)
    names = ", ".join(f'"{name}"' for name in columns)
    rows = old.connection.each(f"SELECT {names} FROM {table}")
    with new.group() as sql:
        if new.connection.rows(f"SELECT 1 FROM {table} LIMIT 1"):
            # Every new manifest has an id of its own, and a row of zero totals.
            sql.execute(f"DELETE FROM {table}")
        while page := list(itertools.islice(rows, _PAGE)):
            sql.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks(columns)})", page)


def _size(manifest: Manifest) -> int:
    return int(manifest.connection.rows("SELECT count(*) FROM tasks")[0][0])


@contextmanager
def _open(place: Place) -> Iterator[Manifest]:
    """Open a manifest that nobody else writes."""
    with ExitStack() as stack:
        if isinstance(place, Path):
            if not place.parent.is_dir():
                raise StorageError(f"{place}: the folder {place.parent} does not exist; create it first")
            stack.enter_context(run_lock(place.parent))
        yield stack.enter_context(closing(Manifest(place)))
