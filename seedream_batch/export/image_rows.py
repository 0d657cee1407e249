"""Images as rows: flat for tables, nested for JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping

from seedream_batch.export.stored_images import Picture
from seedream_batch.model.document import Json
from seedream_batch.model.job import MICRO

Way = tuple[str, ...]
"""The keys that lead to a value in a cell, the axis first."""

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
"""The columns of every table, in this order, after those of the axes."""

TAKEN = frozenset({*FIXED, "file_name", "image"})
"""Names that a column of an axis cannot have."""


def fixed(picture: Picture, path: str) -> dict[str, Json]:
    """Return the columns of every row; `path` is that of the file in the export."""
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
    """Return a row with the cell as it is in the job."""
    return {"cell": picture.cell, **fixed(picture, path)}


def leaves(cell: Mapping[str, Json]) -> Iterator[tuple[Way, Json]]:
    """Yield the values of a cell with the keys that lead to each; lists and empty mappings are values."""
    return _leaves((), cell)


def leaf(value: Json) -> Json:
    """Return a value for a table: lists and mappings become JSON text."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def iso(at: float | None) -> str | None:
    """Return unix seconds as ISO 8601 in UTC, to the second."""
    return None if at is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _leaves(way: Way, value: Mapping[str, Json]) -> Iterator[tuple[Way, Json]]:
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from _leaves((*way, key), inner)
        else:
            yield (*way, key), inner
