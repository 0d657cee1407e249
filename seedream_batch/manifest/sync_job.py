"""Synchronises the manifest with the job: adds new tasks, updates labels and paths, drops the rest."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from seedream_batch.manifest.db.connection import Sql, marks
from seedream_batch.model.task import ImageState, TaskSpec, image_path

_BATCH = 500


@dataclass(frozen=True, slots=True)
class SyncResult:
    """What a job changed in the manifest, in tasks."""

    new: int = 0
    known: int = 0
    moved: int = 0
    dropped: int = 0


def sync_job(connection: Sql, specs: Iterable[TaskSpec], now: float) -> SyncResult:
    """Make the tasks of the job those of the manifest; runs inside a transaction.

    Nothing is deleted: a task no longer in the job loses its ordinal and keeps everything else.
    """
    last = connection.execute("SELECT coalesce(max(id), 0) FROM tasks").fetchone()[0]
    wanted_before = connection.execute("SELECT count(*) FROM tasks WHERE ordinal IS NOT NULL").fetchone()[0]
    seen = bytearray(last // 8 + 1)
    new = known = moved = seen_wanted = 0
    source = iter(specs)
    while batch := list(itertools.islice(source, _BATCH)):
        rows = _rows(connection, [spec.fingerprint for spec in batch])
        rows |= _renamed(connection, [spec for spec in batch if spec.earlier and spec.fingerprint not in rows], now)
        inserts = []
        for spec in batch:
            row = rows.get(spec.fingerprint)
            if row is None:
                inserts.append(_insert_values(spec, now))
                new += 1
                continue
            number, ordinal, paths, cell, price = row
            seen[number >> 3] |= 1 << (number & 7)
            known += 1
            seen_wanted += ordinal is not None
            new_paths = json.dumps(spec.paths, ensure_ascii=False)
            if (ordinal, paths, cell, price) != (spec.ordinal, new_paths, spec.cell, spec.price):
                connection.execute(
                    "UPDATE tasks SET ordinal = ?, paths = ?, cell = ?, price = ?, updated_at = ? WHERE id = ?",
                    (spec.ordinal, new_paths, spec.cell, spec.price, now, number),
                )
            if paths != new_paths or ordinal is None:
                # Another task may have taken the path of a task that comes back.
                moved += _set_targets(connection, number, spec)
        connection.executemany(_INSERT, inserts)
    dropped = 0
    if seen_wanted < wanted_before:
        dropped_rows = [
            (now, number)
            for (number,) in connection.execute("SELECT id FROM tasks WHERE ordinal IS NOT NULL AND id <= ?", (last,))
            if not seen[number >> 3] & (1 << (number & 7))
        ]
        connection.executemany("UPDATE tasks SET ordinal = NULL, updated_at = ? WHERE id = ?", dropped_rows)
        dropped = len(dropped_rows)
    return SyncResult(new, known, moved, dropped)


_INSERT = (
    "INSERT INTO tasks (fingerprint, ordinal, sample, state, body, images, paths, cell, model, size, resolution,"
    " price, updated_at) VALUES (?, ?, ?, 'planned', ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def _insert_values(spec: TaskSpec, now: float) -> tuple[object, ...]:
    paths = json.dumps(spec.paths, ensure_ascii=False)
    return (
        *(spec.fingerprint, spec.ordinal, spec.sample, spec.body, spec.images, paths),
        *(spec.cell, spec.model, spec.size, spec.resolution, spec.price, now),
    )


def _renamed(connection: Sql, specs: Sequence[TaskSpec], now: float) -> dict[str, _Row]:
    """Give tasks known under fingerprints of earlier versions their new fingerprints; return their rows.

    The bodies of tasks that were already sent stay as they were.
    """
    prints = [print_ for spec in specs for _, print_ in spec.earlier]
    before = _rows(connection, prints) if prints else {}
    rows = {}
    for spec in specs:
        known = next((print_ for _, print_ in spec.earlier if print_ in before), None)
        if known is not None:
            rows[spec.fingerprint] = before.pop(known)
            connection.execute(
                "UPDATE tasks SET fingerprint = ?, body = CASE WHEN attempt = 0 THEN ? ELSE body END, updated_at = ?"
                " WHERE id = ?",
                (spec.fingerprint, spec.body, now, rows[spec.fingerprint][0]),
            )
    return rows


_Row = tuple[int, int | None, str, str, int]


def known_as(specs: Sequence[TaskSpec], known: Callable[[Sequence[str]], Collection[str]]) -> list[TaskSpec]:
    """Return the tasks; those known only under a fingerprint of an earlier version with that one.

    `known` returns which fingerprints the manifest has. Only for reading: `sync_job` stores the new fingerprints.
    """
    prints = [
        print_
        for spec in specs
        for print_ in (spec.fingerprint, *(earlier for _, earlier in spec.earlier))
        if spec.earlier
    ]
    if not prints:
        return list(specs)
    existing = known(prints)
    return [_known_as(spec, existing) if spec.earlier and spec.fingerprint not in existing else spec for spec in specs]


def _known_as(spec: TaskSpec, existing: Collection[str]) -> TaskSpec:
    for body, print_ in spec.earlier:
        if print_ in existing:
            return replace(spec, fingerprint=print_, body=body)
    return spec


def _rows(connection: Sql, fingerprints: Sequence[str]) -> dict[str, _Row]:
    rows = connection.execute(
        f"SELECT fingerprint, id, ordinal, paths, cell, price FROM tasks WHERE fingerprint IN ({marks(fingerprints)})",
        fingerprints,
    )
    return {row[0]: tuple(row[1:]) for row in rows}


def _set_targets(connection: Sql, number: int, spec: TaskSpec) -> int:
    """Record where the task's files have to move; return 1 if a stored one has to, else 0.

    A file can have its final name before the manifest calls it stored, and a missing one may come back.
    """
    moving = 0
    placed = connection.execute(
        'SELECT "index", path, state FROM images WHERE task = ? AND path IS NOT NULL', (number,)
    ).fetchall()
    for index, path, state in placed:
        target = image_path(spec.paths, spec.images, index, spec.fingerprint) + PurePosixPath(path).suffix
        connection.execute(
            'UPDATE images SET target = ? WHERE task = ? AND "index" = ?',
            (target if target != path else None, number, index),
        )
        moving += target != path and state == ImageState.STORED
    return int(moving > 0)
