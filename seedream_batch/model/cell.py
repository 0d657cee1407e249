"""Matrix cells: how their values match a filter or an `exclude`, and how they are shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from seedream_batch.model.document import Json
from seedream_batch.model.job import Axis

CellFilter = Callable[[Mapping[str, Json]], bool]
"""Whether a command works on a cell, given as a mapping from axis to value."""

LABEL_KEYS = ("id", "name", "key", "slug", "title", "text")
"""Keys of a mapping whose value may name it to people, best first."""

_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True)


def matches(value: Json, wanted: Json) -> bool:
    """Return whether an axis value matches what an exclude says of its axis.

    A list means "any of". A mapping matches if each of its keys does. A scalar matches an equal value or, where the
    value is a mapping, its `id`.
    """
    if isinstance(wanted, list):
        return _equal(value, wanted) or any(matches(value, alternative) for alternative in wanted)
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(
            key in value and matches(value[key], item) for key, item in wanted.items()
        )
    if isinstance(value, dict):
        return "id" in value and _same(value["id"], wanted)
    return _same(value, wanted)


def _same(value: Json, wanted: Json) -> bool:
    # 1 == True in Python but not in a job file, and all values from csv files are text.
    if isinstance(value, str) and isinstance(wanted, bool):
        return value.strip().lower() == str(wanted).lower()
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    if isinstance(value, str) and isinstance(wanted, int | float):
        return value.strip() == str(wanted)
    return bool(value == wanted)


def _equal(value: Json, wanted: Json) -> bool:
    return type(value) is type(wanted) and json.dumps(value, sort_keys=True) == json.dumps(wanted, sort_keys=True)


def has_value(axis: Axis, wanted: Json) -> bool:
    """Return whether a value of the axis equals what is wanted; a list is one value here, not "any of"."""
    return any(_equal(value, wanted) for value in axis.values)


def fits_any(axis: Axis, wanted: Json) -> bool:
    """Return whether at least one value of the axis matches."""
    return any(matches(value, wanted) for value in axis.values)


CUT = "…"
"""Marks the end of a shortened name."""


def name_of(value: Json) -> str:
    """Return a display name of at most 40 characters: a scalar itself, a mapping by its id or similar key."""
    text = whole_name(value)
    return text if len(text) <= 40 else text[:39] + CUT


def whole_name(value: Json) -> str:
    """Return the display name in full, with white space collapsed to single spaces."""
    if isinstance(value, dict):
        for key in LABEL_KEYS:
            if key in value and not isinstance(value[key], dict | list):
                return whole_name(value[key])
    if isinstance(value, dict | list):
        text = _start_of(value)
    else:
        text = value if isinstance(value, str) else json.dumps(value)
    return " ".join(text.split())


def _start_of(value: Json) -> str:
    """Return the JSON text of a value up to about 1,000 characters: a few lines of aliases can expand to millions."""
    text = ""
    for piece in _ENCODER.iterencode(value):
        text += piece
        if len(text) > 1000:
            return f"{text}{CUT}"
    return text


def label(cell: Mapping[str, Json], sample: int | None = None) -> str:
    """Return a cell for people: `subject=panda size=16:9`, with the sample number if given."""
    parts = [f"{name}={name_of(value)}" for name, value in cell.items()]
    if sample is not None:
        parts.append(f"sample={sample}")
    return " ".join(parts)
