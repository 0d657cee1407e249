"""Bringing the manifest in line with the job: new tasks in, changed labels and paths noted, the rest dropped."""

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


def enter(connection: Sql, specs: Iterable[TaskSpec], now: float) -> SyncResult:
    """Makes the tasks of the job those of the manifest; runs inside a transaction.

    Nothing is deleted: a task that the job no longer has loses its place in the job and keeps all else.
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
                # A task that comes back may have had to give up its place meanwhile.
                moved += _set_targets(connection, number, spec)
        connection.executemany(_INSERT, inserts)
    dropped = 0
    if seen_wanted < wanted_before:
        gone = [
            (now, number)
            for (number,) in connection.execute("SELECT id FROM tasks WHERE ordinal IS NOT NULL AND id <= ?", (last,))
            if not seen[number >> 3] & (1 << (number & 7))
        ]
        connection.executemany("UPDATE tasks SET ordinal = NULL, updated_at = ? WHERE id = ?", gone)
        dropped = len(gone)
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
    """The tasks that earlier versions knew under other fingerprints, from now on under those of these.

    What was sent for them stays what it was.
    """
    prints = [print_ for spec in specs for _, print_ in spec.earlier]
    before = _rows(connection, prints) if prints else {}
    found = {}
    for spec in specs:
        known = next((print_ for _, print_ in spec.earlier if print_ in before), None)
        if known is not None:
            found[spec.fingerprint] = before.pop(known)
            connection.execute(
                "UPDATE tasks SET fingerprint = ?, body = CASE WHEN attempt = 0 THEN ? ELSE body END, updated_at = ?"
                " WHERE id = ?",
                (spec.fingerprint, spec.body, now, found[spec.fingerprint][0]),
            )
    return found


_Row = tuple[int, int | None, str, str, int]


def known_as(specs: Sequence[TaskSpec], known: Callable[[Sequence[str]], Collection[str]]) -> list[TaskSpec]:
    """The tasks, those that are only known under a fingerprint of an earlier version with that one.

    `known` says which of some fingerprints the manifest has. For looking only: `enter` gives them their new ones.
    """
    prints = [
        print_ for spec in specs for print_ in (spec.fingerprint, *(one for _, one in spec.earlier)) if spec.earlier
    ]
    if not prints:
        return list(specs)
    there = known(prints)
    return [_known_as(spec, there) if spec.earlier and spec.fingerprint not in there else spec for spec in specs]


def _known_as(spec: TaskSpec, there: Collection[str]) -> TaskSpec:
    for body, print_ in spec.earlier:
        if print_ in there:
            return replace(spec, fingerprint=print_, body=body)
    return spec


def _rows(connection: Sql, fingerprints: Sequence[str]) -> dict[str, _Row]:
    found = connection.execute(
        f"SELECT fingerprint, id, ordinal, paths, cell, price FROM tasks WHERE fingerprint IN ({marks(fingerprints)})",
        fingerprints,
    )
    return {row[0]: tuple(row[1:]) for row in found}


def _set_targets(connection: Sql, number: int, spec: TaskSpec) -> int:
    """Notes where the task's files have to move; whether any that is stored has to.

    A file can stand under its name before the manifest calls it stored, and be missing for a while and come back.
    """
    aimed = 0
    placed = connection.execute(
        'SELECT "index", path, state FROM images WHERE task = ? AND path IS NOT NULL', (number,)
    ).fetchall()
    for index, path, state in placed:
        target = image_path(spec.paths, spec.images, index, spec.fingerprint) + PurePosixPath(path).suffix
        connection.execute(
            'UPDATE images SET target = ? WHERE task = ? AND "index" = ?',
            (target if target != path else None, number, index),
        )
        aimed += target != path and state == ImageState.STORED
    return int(aimed > 0)
