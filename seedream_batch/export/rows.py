"""A picture as a row: flat for tables, nested for JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping

from seedream_batch.errors import UsageError
from seedream_batch.export.pictures import Picture
from seedream_batch.model.document import Json
from seedream_batch.model.job import MICRO

FIXED: Mapping[str, type] = {
    "path": str,
    "prompt": str,
    "size": str,
    "resolution": str,
    "width": int,
    "height": int,
    "format": str,
    "task_id": str,
    "sample": int,
    "index": int,
    "cost_usd": float,
    "sha256": str,
    "bytes": int,
    "submitted_at": str,
    "ended_at": str,
    "stored_at": str,
}
"""The columns that every table has, in this order, behind those of the axes."""

TAKEN = frozenset({*FIXED, "file_name", "image"})
"""Names that a column of an axis cannot have."""


def fixed(picture: Picture, path: str) -> dict[str, Json]:
    """What every row says; `path` is that of the file in the export."""
    return {
        "path": path,
        "prompt": picture.prompt,
        "size": picture.size,
        "resolution": picture.resolution,
        "width": picture.file.width,
        "height": picture.file.height,
        "format": picture.format,
        "task_id": picture.task_id,
        "sample": picture.sample,
        "index": picture.index,
        "cost_usd": None if picture.cost is None else picture.cost / MICRO,
        "sha256": picture.file.sha256,
        "bytes": picture.file.bytes,
        "submitted_at": iso(picture.submitted_at),
        "ended_at": iso(picture.ended_at),
        "stored_at": iso(picture.stored_at),
    }


def nested(picture: Picture, path: str) -> dict[str, Json]:
    """A row with the cell as it is in the job."""
    return {"cell": picture.cell, **fixed(picture, path)}


def flat(cell: Mapping[str, Json]) -> dict[str, Json]:
    """The values of a cell by column: `subject.id` for what is in a mapping; a list is its JSON text.

    A name that is taken by another column gets `cell.` before it. Raises `UsageError` where two values of a cell have
    one name all the same.
    """
    columns: dict[str, Json] = {}
    for axis, value in cell.items():
        for name, leaf in _leaves(axis, value):
            column = f"cell.{name}" if name in TAKEN else name
            if column in columns:
                raise UsageError(
                    f"two values of a cell would share the column `{column}`; rename a key of the axis `{axis}`, or"
                    " export as jsonl, which keeps mappings"
                )
            columns[column] = json.dumps(leaf, ensure_ascii=False) if isinstance(leaf, list | dict) else leaf
    return columns


def iso(at: float | None) -> str | None:
    """A time in unix seconds as ISO 8601 in UTC, to the second."""
    return None if at is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _leaves(name: str, value: Json) -> Iterator[tuple[str, Json]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}", inner)
    else:
        yield name, value
