"""The values of a cell: what fits a filter or an `exclude`, and how people see them."""

from __future__ import annotations

import json
from collections.abc import Mapping

from seedream_batch.model.document import Json
from seedream_batch.model.job import Axis

LABEL_KEYS = ("id", "name", "key", "slug", "title", "text")
"""The keys of a mapping that may name it for people, best first."""

_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True)


def matches(value: Json, wanted: Json) -> bool:
    """Whether an axis value fits what an exclude says of its axis.

    A list means "any of". A mapping fits when each key that it gives fits. A scalar fits the value itself or,
    where the value is a mapping, its `id`.
    """
    if isinstance(wanted, list):
        return _equal(value, wanted) or any(matches(value, one) for one in wanted)
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(key in value and matches(value[key], one) for key, one in wanted.items())
    if isinstance(value, dict):
        return "id" in value and _same(value["id"], wanted)
    return _same(value, wanted)


def _same(value: Json, wanted: Json) -> bool:
    # 1 == True in Python, not in a job file; and values from csv files are text whatever they look like.
    if isinstance(value, str) and isinstance(wanted, bool):
        return value.strip().lower() == str(wanted).lower()
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    if isinstance(value, str) and isinstance(wanted, int | float):
        return value.strip() == str(wanted)
    return bool(value == wanted)


def _equal(value: Json, wanted: Json) -> bool:
    return type(value) is type(wanted) and json.dumps(value, sort_keys=True) == json.dumps(wanted, sort_keys=True)


def fits_as_it_is(axis: Axis, wanted: Json) -> bool:
    """Whether a value of the axis is exactly what is wanted: a list as a value, not as "any of"."""
    return any(_equal(value, wanted) for value in axis.values)


def fits_any(axis: Axis, wanted: Json) -> bool:
    """Whether at least one value of the axis fits."""
    return any(matches(value, wanted) for value in axis.values)


CUT = "…"
"""What ends a name that was cut."""


def name_of(value: Json) -> str:
    """A short name of an axis value for people: a scalar as it is, a mapping by its id or the like."""
    text = whole_name(value)
    return text if len(text) <= 40 else text[:39] + CUT


def whole_name(value: Json) -> str:
    """The name of an axis value, not cut; white space in it is single spaces."""
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
    """What is enough of the JSON text of a value: aliases make values of millions of parts in a file of a few lines."""
    text = ""
    for piece in _ENCODER.iterencode(value):
        text += piece
        if len(text) > 1000:
            return f"{text}{CUT}"
    return text


def label(cell: Mapping[str, Json], sample: int | None = None) -> str:
    """A cell for people: `subject=panda size=16:9`, with the sample where it matters."""
    parts = [f"{name}={name_of(value)}" for name, value in cell.items()]
    if sample is not None:
        parts.append(f"sample={sample}")
    return " ".join(parts)
